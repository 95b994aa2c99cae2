-- Caches a value if the one there is still the one that was seen.
-- KEYS: user. ARGV: value, ttl (ms), the value seen. Returns 1 if it was.
if redis.call('GET', KEYS[1]) ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
