-- Ends all sessions of a user, but for one if it is live.
-- KEYS: sessions. ARGV: deadline, the token id to keep, or nothing, and `cluster` or nothing. Returns how many were removed.
local key, keep = KEYS[1], ARGV[2]
local count = redis.call('HLEN', key)
local kept = keep ~= '' and redis.call('HGET', key, keep)
if not kept or not is_live(kept) then
  redis.call('UNLINK', key)
  return { clock, count }
end
keep_only(key, keep, kept, ARGV[3] == 'cluster')
return { clock, count - 1 }
