-- Begins every script that reads records; see record.rs for their layout.

-- How many fields of a hash one call reads at most, so that it does not keep the server from others.
local MOST = 1280
-- The version of this reader, and the last one that there can be.
local READER, LAST_VERSION = 1, 31

-- 0 for what is too short to be a record of any version.
local function expiry(record)
  if #record < 7 then return 0 end
  return (struct.unpack('>I6', record))
end

-- Whether only a newer reader can interpret the record.
local function is_newer(record)
  return #record >= 19 and record:byte(7) > READER and record:byte(7) <= LAST_VERSION
end

-- Whether the record is one of this version and complete.
local function is_readable(record)
  if #record < 20 or record:byte(7) ~= READER then return false end
  local has, len = record:byte(20), 20
  if has % 2 >= 1 then len = len + 6 end
  if has % 4 >= 2 then len = len + 6 end
  if has % 8 >= 4 then
    if #record < len + 4 then return false end
    len = len + 4 + struct.unpack('>I4', record, len + 1)
  end
  if has % 16 >= 8 then
    if #record < len + 17 then return false end
    len = len + 17 + 22 * record:byte(len + 17)
  end
  return #record >= len
end

-- The parts of a readable record after its header.
local function parse(record)
  local has, at, parts = record:byte(20), 21, {}
  local function take(len)
    local part = record:sub(at, at + len - 1)
    at = at + len
    return part
  end
  if has % 2 >= 1 then parts.authenticated = take(6) end
  if has % 4 >= 2 then parts.ends = take(6) end
  if has % 8 >= 4 then parts.metadata = take((struct.unpack('>I4', take(4)))) end
  if has % 16 >= 8 then
    parts.current = take(16)
    parts.replaced = take(22 * take(1):byte())
  end
  -- What only newer readers know stays as it is.
  parts.unknown, parts.rest = has - has % 16, record:sub(at)
  return parts
end

-- The record with this expiry, creation, last refresh and these parts.
local function build(expires, created, refreshed, parts)
  local has, tail = parts.unknown or 0, ''
  if parts.authenticated then
    has, tail = has + 1, parts.authenticated
  end
  if parts.ends then
    has, tail = has + 2, tail .. parts.ends
  end
  if parts.metadata and parts.metadata ~= '' then
    has, tail = has + 4, tail .. struct.pack('>I4', #parts.metadata) .. parts.metadata
  end
  if parts.current then
    has, tail = has + 8, tail .. parts.current .. string.char(#parts.replaced / 22) .. parts.replaced
  end
  return struct.pack('>I6BI6I6B', expires, READER, created, refreshed, has) .. tail .. (parts.rest or '')
end

-- Whether the record is of a session that lives, as far as this reader or a newer one can tell.
local function is_live(record)
  return expiry(record) > now and (is_newer(record) or is_readable(record))
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
