-- Begins every script that reads records; see record.rs for their layout.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- 0 for what is too short to be a record of any version.
local function expiry(record)
  if #record < 7 then return 0 end
  return (struct.unpack('>I6', record))
end

local function readable(record)
  local version = record:byte(7)
  return version == 2 and #record >= 19 or version == 3 and #record >= 25
end

-- Stores a record, and lets its hash live at least as long.
local function put(key, id, record)
  local expires = expiry(record)
  local left = redis.call('PTTL', key)
  redis.call('HSET', key, id, record)
  if left == -1 then
    -- It lost its expiry, say in a restore from a backup; others in it may live longer.
    local all = redis.call('HGETALL', key)
    for i = 2, #all, 2 do
      expires = math.max(expires, expiry(all[i]))
    end
  end
  if left < expires - now_ms() then
    redis.call('PEXPIREAT', key, expires)
  end
end
