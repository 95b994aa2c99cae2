-- Starts a session and keeps the user's limit.
-- KEYS: sessions. ARGV: deadline, token id, ttl, max lifetime or 0 (ms), metadata,
-- limit or 0, what to do when full: oldest | refreshed | reject.
-- Returns `done`, the record, then id and record of each session evicted; `full`; `newer`, if
-- the session is live and only a newer reader can interpret it; or `crowded`, if there are more fields than one call may read. In
-- these three cases nothing was changed.
local key, id, metadata = KEYS[1], ARGV[2], ARGV[5]
local limit, on_full = tonumber(ARGV[6]), ARGV[7]

-- Whether so many sessions are live, as far as one call can tell.
local function has_live(wanted)
  local cursor, seen, live, read = '0', {}, 0, 0
  repeat
    local page = redis.call('HSCAN', key, cursor, 'COUNT', 256)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local field, record = page[2][i], page[2][i + 1]
      read = read + 1
      -- A scan may return a field more than once.
      if not seen[field] and is_live(record) then
        seen[field] = true
        live = live + 1
      end
    end
  until live >= wanted or cursor == '0' or read >= 2 * MOST
  return live >= wanted
end

local known = redis.call('HGET', key, id)
if known and is_live(known) then
  return { clock, { is_newer(known) and 'newer' or 'done', known } }
end

-- They go last: while its slot is on the move a node may not make a key anew that is gone.
local result, gone = {}, {}
local count = limit > 0 and redis.call('HLEN', key) or 0
if limit > 0 and count >= limit then
  if count > MOST then
    return { clock, { on_full == 'reject' and has_live(limit) and 'full' or 'crowded' } }
  end
  local order_at = on_full == 'refreshed' and 14 or 8
  local live = {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local field, record = all[i], all[i + 1]
    if expiry(record) <= now then
      gone[#gone + 1] = field
    elseif is_live(record) then
      live[#live + 1] = { id = field, record = record, order = struct.unpack('>I6', record, order_at) }
    end
  end
  local excess = #live - limit + 1
  if excess > 0 and on_full == 'reject' then
    return { clock, { 'full' } }
  end
  if excess > 0 then
    table.sort(live, function(a, b)
      if a.order ~= b.order then return a.order < b.order end
      return a.id < b.id
    end)
  end
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

local expires, parts = now + tonumber(ARGV[3]), { metadata = metadata }
if ARGV[4] ~= '0' then
  local ends = now + tonumber(ARGV[4])
  expires, parts.ends = math.min(expires, ends), struct.pack('>I6', ends)
end
local record = build(expires, now, now, parts)
put(key, id, record)
for _, field in ipairs(gone) do
  if field ~= id then
    redis.call('HDEL', key, field)
  end
end
table.insert(result, 1, 'done')
table.insert(result, 2, record)
return { clock, result }
