-- Changes nothing, but is replicated: a replica that has this has all that came before.
-- KEYS: sessions.
redis.call('HSET', KEYS[1], 'fence', '')
redis.call('HDEL', KEYS[1], 'fence')
