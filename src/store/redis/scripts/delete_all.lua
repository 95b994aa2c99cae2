-- Ends all sessions of a user, but for one if it is live.
-- KEYS: sessions. ARGV: the token id to keep, or nothing. Returns how many were removed.
local key, keep = KEYS[1], ARGV[1]
local count = redis.call('HLEN', key)
local kept = keep ~= '' and redis.call('HGET', key, keep)
if not kept or not readable(kept) or expiry(kept) <= now_ms() then
  redis.call('UNLINK', key)
  return count
end
-- The hash must not be empty in between: while its slot is on the move a node may not make a key anew.
local gone = {}
for _, field in ipairs(redis.call('HKEYS', key)) do
  if field ~= keep then
    gone[#gone + 1] = field
    if #gone == 1000 then
      redis.call('HDEL', key, unpack(gone))
      gone = {}
    end
  end
end
if #gone > 0 then
  redis.call('HDEL', key, unpack(gone))
end
redis.call('PEXPIREAT', key, expiry(kept))
return count - 1
