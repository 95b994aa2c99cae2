-- Ends all sessions of a user, but for one if it is live.
-- KEYS: sessions. ARGV: deadline, the token id to keep, or nothing, and `cluster` or nothing. Returns how many were removed.
local key, keep = KEYS[1], ARGV[2]
local count = redis.call('HLEN', key)
local kept = keep ~= '' and redis.call('HGET', key, keep)
if not kept or not readable(kept) or expiry(kept) <= now then
  redis.call('UNLINK', key)
  return { clock, count }
end
-- While its slot is on the move a node of a cluster may not make a key anew that is gone. It then answers with an error
-- for any key that it does not have, such as this one: braces in user ids are escaped. Only a number says that the node
-- may make the key anew. An error may also mean that the account may not read this key, which says nothing.
if ARGV[3] == 'cluster' and type(redis.pcall('HLEN', key .. '}')) ~= 'number' then
  -- The hash must not be empty in between. This takes long for a user with very many sessions.
  local all, gone = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    if all[i] ~= keep then
      gone[#gone + 1] = all[i]
    end
    if #gone == 1000 or i + 1 == #all and #gone > 0 then
      redis.call('HDEL', key, unpack(gone))
      gone = {}
    end
  end
else
  redis.call('UNLINK', key)
  redis.call('HSET', key, keep, kept)
end
redis.call('PEXPIREAT', key, expiry(kept))
return { clock, count - 1 }
