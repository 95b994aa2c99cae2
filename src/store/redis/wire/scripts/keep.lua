-- Ends all sessions of a user but a live one, whose record stays as it is.
local function keep_only(key, id, record, in_cluster)
  -- While its slot is on the move a node of a cluster may not make a key anew that is gone. It then answers with an error
  -- for any key that it does not have, such as this one: braces in user ids are escaped. Only a number says that the node
  -- may make the key anew. An error may also mean that the account may not read this key, which says nothing.
  if in_cluster and type(redis.pcall('HLEN', key .. '}')) ~= 'number' then
    -- The hash must not be empty in between. This takes long for a user with very many sessions.
    local all, gone = redis.call('HGETALL', key), {}
    for i = 1, #all, 2 do
      if all[i] ~= id then
        gone[#gone + 1] = all[i]
      end
      if #gone == 1000 or i + 1 == #all and #gone > 0 then
        redis.call('HDEL', key, unpack(gone))
        gone = {}
      end
    end
  else
    redis.call('UNLINK', key)
    redis.call('HSET', key, id, record)
  end
  redis.call('PEXPIREAT', key, expiry(record))
end
