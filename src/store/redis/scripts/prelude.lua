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
  return #record >= 25 and record:byte(7) == 1
end

-- Stores a record, and lets its hash live at least as long.
local function put(key, id, record)
  redis.call('HSET', key, id, record)
  local expires = expiry(record)
  if redis.call('PTTL', key) < expires - now_ms() then
    redis.call('PEXPIREAT', key, expires)
  end
end
