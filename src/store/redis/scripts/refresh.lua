-- Moves the expiry of a live session.
-- KEYS: sessions. ARGV: token id, ttl (ms). Returns 1, or 0 if there is no such live session.
local key, id, now = KEYS[1], ARGV[1], now_ms()
local record = redis.call('HGET', key, id)
if not record or not readable(record) or expiry(record) <= now then
  return 0
end
local version, expires = record:byte(7), now + tonumber(ARGV[2])
if version == 3 then
  expires = math.min(expires, (struct.unpack('>I6', record, 20)))
end
local created = struct.unpack('>I6', record, 8)
put(key, id, struct.pack('>I6BI6I6', expires, version, created, now) .. record:sub(20))
return 1
