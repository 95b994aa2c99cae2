-- Ends a session.
-- KEYS: sessions. ARGV: deadline, token id. Returns 1 if it was live, else 0.
local key, id = KEYS[1], ARGV[2]
local record = redis.call('HGET', key, id)
if not record then
  return { clock, 0 }
end
redis.call('HDEL', key, id)
return { clock, is_live(record) and 1 or 0 }
