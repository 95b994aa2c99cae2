-- Ends sessions that have expired, or for which a limit has no room.
-- KEYS: sessions. ARGV: deadline, how many fields have to stay, then id and header (19 bytes) of each; without a header
-- it goes only if it has expired, else also if its header is still the same. Returns the ids of the live ones that it ended.
local key, stay = KEYS[1], tonumber(ARGV[2])
local count, gone, ended = redis.call('HLEN', key), {}, {}
for i = 3, #ARGV, 2 do
  local id, header = ARGV[i], ARGV[i + 1]
  local record = redis.call('HGET', key, id)
  if record and expiry(record) <= now then
    gone[#gone + 1] = id
  elseif record and record:sub(1, 19) == header and count - #gone > stay then
    gone[#gone + 1] = id
    ended[#ended + 1] = id
  end
end
if #gone > 0 then
  redis.call('HDEL', key, unpack(gone))
end
return { clock, ended }
