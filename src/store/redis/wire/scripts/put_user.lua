-- Caches a value.
-- KEYS: user. ARGV: deadline, value, ttl (ms), when: always | none | same, and the value that must be the same.
-- Returns 1, or 0 if there is a value, or another one.
local key, value, ttl, when = KEYS[1], ARGV[2], ARGV[3], ARGV[4]
if when == 'same' and redis.call('GET', key) ~= ARGV[5] then
  return { clock, 0 }
end
if when == 'none' then
  return { clock, redis.call('SET', key, value, 'PX', ttl, 'NX') and 1 or 0 }
end
redis.call('SET', key, value, 'PX', ttl)
return { clock, 1 }
