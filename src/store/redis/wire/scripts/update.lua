-- Moves the expiry of a live session.
-- KEYS: sessions. ARGV: deadline, token id, ttl (ms), then the last refresh and the expiry that it must still have
-- (ms), or 0 and 0. Returns 1; 0 if there is no such live session or it has others; or 2 if it has others that an earlier
-- copy of this call may have set.
local key, id = KEYS[1], ARGV[2]
local record = redis.call('HGET', key, id)
if not record or not readable(record) or expiry(record) <= now then
  return { clock, 0 }
end
local version, created, refreshed = struct.unpack('>BI6I6', record, 7)
local function expiry_if_refreshed_at(time)
  local expires = time + tonumber(ARGV[3])
  return version == 3 and math.min(expires, (struct.unpack('>I6', record, 20))) or expires
end
if ARGV[5] ~= '0' and (refreshed ~= tonumber(ARGV[4]) or expiry(record) ~= tonumber(ARGV[5])) then
  local is_as_wanted = refreshed >= tonumber(ARGV[4]) and expiry(record) == expiry_if_refreshed_at(refreshed)
  return { clock, is_as_wanted and 2 or 0 }
end
local expires = expiry_if_refreshed_at(now)
put(key, id, struct.pack('>I6BI6I6', expires, version, created, now) .. record:sub(20))
return { clock, 1 }
