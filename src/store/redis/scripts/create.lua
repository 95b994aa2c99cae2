-- Starts a session and keeps the user's limit.
-- KEYS: sessions. ARGV: token id, ttl, max lifetime or 0 (ms), metadata,
-- limit or 0, what to do when full: oldest | refreshed | reject.
-- Returns false when full, else the record, then id and record of each session evicted.
local key, id = KEYS[1], ARGV[1]
local now, limit, on_full = now_ms(), tonumber(ARGV[5]), ARGV[6]

local known = redis.call('HGET', key, id)
if known and readable(known) and expiry(known) > now then
  return { known }
end

-- They go last: while its slot is on the move a node may not make a key anew that is gone.
local result, gone = {}, {}
local order_at = on_full == 'refreshed' and 14 or 8
if limit > 0 and redis.call('HLEN', key) >= limit then
  local live = {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local field, record = all[i], all[i + 1]
    if expiry(record) <= now then
      gone[#gone + 1] = field
    elseif readable(record) then
      live[#live + 1] = { id = field, record = record, order = struct.unpack('>I6', record, order_at) }
    end
  end
  local excess = #live - limit + 1
  if excess > 0 and on_full == 'reject' then
    return false
  end
  table.sort(live, function(a, b)
    if a.order ~= b.order then return a.order < b.order end
    return a.id < b.id
  end)
  for i = 1, excess do
    gone[#gone + 1] = live[i].id
    result[#result + 1] = live[i].id
    result[#result + 1] = live[i].record
  end
else
  -- Frees some of what has expired, without reading the whole of a big hash.
  local sample = redis.call('HRANDFIELD', key, 8, 'WITHVALUES')
  for i = 1, #sample, 2 do
    if expiry(sample[i + 1]) <= now then
      gone[#gone + 1] = sample[i]
    end
  end
end

local version, tail, expires = 2, ARGV[4], now + tonumber(ARGV[2])
if ARGV[3] ~= '0' then
  local ends = now + tonumber(ARGV[3])
  version, tail, expires = 3, struct.pack('>I6', ends) .. tail, math.min(expires, ends)
end
local record = struct.pack('>I6BI6I6', expires, version, now, now) .. tail
put(key, id, record)
for _, field in ipairs(gone) do
  if field ~= id then
    redis.call('HDEL', key, field)
  end
end
table.insert(result, 1, record)
return result
