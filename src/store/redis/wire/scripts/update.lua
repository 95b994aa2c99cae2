-- Changes a live session.
-- KEYS: sessions. ARGV: deadline, then as below; what is empty is not asked for, and times are in ms.
local key, id = KEYS[1], ARGV[2]
local ttl, metadata_is_set, metadata, authenticated = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
-- What the session must still have: the times of its version, the metadata, and, in bytes, the current token id. Without
-- another one, that is the first.
local if_refreshed, if_expires, if_metadata_is_set, if_metadata = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], ARGV[10]
local first, if_current = ARGV[11], ARGV[12]
-- A new token id, the grace of the one that it replaces, and how many replaced ones are kept.
local new, grace, most = ARGV[13], tonumber(ARGV[14]), tonumber(ARGV[15])
local ends_others, in_cluster = ARGV[16] ~= '', ARGV[17] == 'cluster'
-- Returns the outcome, the expiry, and how many other sessions were ended. The outcome is `done`; `no`, if there is no such
-- live session, or it does not meet a condition; `perhaps`, if it does not because an earlier copy of this call may have
-- changed it; or `newer`, if only a newer reader can interpret it.
local record = redis.call('HGET', key, id)
if not record or not is_live(record) then
  return { clock, { 'no', 0, 0 } }
end
if is_newer(record) then
  return { clock, { 'newer', 0, 0 } }
end
local parts = parse(record)
local expires, _, created, refreshed = struct.unpack('>I6BI6I6', record)
local current = parts.current or first
-- If an earlier copy of this call has set the new token, only the other sessions are left to end.
if new == '' or current ~= new then
  if if_current ~= '' and current ~= if_current or if_metadata_is_set ~= '' and (parts.metadata or '') ~= if_metadata then
    return { clock, { 'no', 0, 0 } }
  end
  local function expiry_if_refreshed_at(time)
    return parts.ends and math.min(time + ttl, (struct.unpack('>I6', parts.ends))) or time + ttl
  end
  if if_expires and (refreshed ~= if_refreshed or expires ~= if_expires) then
    local is_as_wanted = ttl and refreshed >= if_refreshed and expires == expiry_if_refreshed_at(refreshed)
    return { clock, { is_as_wanted and 'perhaps' or 'no', expires, 0 } }
  end
  if ttl then
    expires, refreshed = expiry_if_refreshed_at(now), now
  end
  if metadata_is_set ~= '' then
    parts.metadata = metadata
  end
  if authenticated ~= '' then
    parts.authenticated = struct.pack('>I6', now)
  end
  if new ~= '' then
    local replaced = current .. struct.pack('>I6', now + grace) .. (parts.replaced or '')
    parts.current, parts.replaced = new, replaced:sub(1, 22 * most)
  end
  record = build(expires, created, refreshed, parts)
  put(key, id, record)
end
local ended = 0
if ends_others then
  ended = redis.call('HLEN', key) - 1
  keep_only(key, id, record, in_cluster)
end
return { clock, { 'done', expires, ended } }
