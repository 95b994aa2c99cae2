-- Moves the expiry of a live session.
-- KEYS: sessions. ARGV: token id, ttl (ms). Returns 1, or 0 if there is no such live session.
local key, id, now = KEYS[1], ARGV[1], now_ms()
local record = redis.call('HGET', key, id)
if not record or not readable(record) or expiry(record) <= now then
  return 0
end
local created, _, ends = struct.unpack('>I6I6I6', record, 8)
local expires = now + tonumber(ARGV[2])
if ends > 0 then
  expires = math.min(expires, ends)
end
put(key, id, struct.pack('>I6BI6I6I6', expires, 1, created, now, ends) .. record:sub(26))
return 1
