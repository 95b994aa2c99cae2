-- Begins every script that reads records; see record.rs for their layout.

-- How many fields of a hash one call reads at most, so that it does not keep the server from others.
local MOST = 1280

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
    -- It lost its expiry, say in a restore from a backup; others in it may live longer. A hash that is too large to be
    -- read in one call gets an expiry when it has become smaller.
    if redis.call('HLEN', key) > MOST then return end
    local all = redis.call('HGETALL', key)
    for i = 2, #all, 2 do
      expires = math.max(expires, expiry(all[i]))
    end
  end
  if left < expires - now then
    redis.call('PEXPIREAT', key, expires)
  end
end
