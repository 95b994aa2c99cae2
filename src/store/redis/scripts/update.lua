-- Moves the expiry of a live session.
-- KEYS: sessions. ARGV: deadline, token id, ttl (ms), then the last refresh and the expiry that it must still have
-- (ms), or 0 and 0. Returns 1, or 0 if there is no such live session or it has others.
local key, id = KEYS[1], ARGV[2]
local record = redis.call('HGET', key, id)
if not record or not readable(record) or expiry(record) <= now then
  return { clock, 0 }
end
local created, refreshed = struct.unpack('>I6I6', record, 8)
if ARGV[5] ~= '0' and (refreshed ~= tonumber(ARGV[4]) or expiry(record) ~= tonumber(ARGV[5])) then
  return { clock, 0 }
end
local version, expires = record:byte(7), now + tonumber(ARGV[3])
if version == 3 then
  expires = math.min(expires, (struct.unpack('>I6', record, 20)))
end
put(key, id, struct.pack('>I6BI6I6', expires, version, created, now) .. record:sub(20))
return { clock, 1 }
