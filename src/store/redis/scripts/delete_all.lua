-- Ends all sessions of a user, but for one if it is live.
-- KEYS: sessions. ARGV: the token id to keep, or nothing. Returns how many were removed.
local key, keep = KEYS[1], ARGV[1]
local count = redis.call('HLEN', key)
local kept = keep ~= '' and redis.call('HGET', key, keep)
redis.call('UNLINK', key)
if kept and readable(kept) and expiry(kept) > now_ms() then
  put(key, keep, kept)
  return count - 1
end
return count
