-- Changes a live session.
-- KEYS: sessions. ARGV: deadline, token id, ttl (ms) or nothing, `set` or nothing, the metadata to set, `authenticated` or
-- nothing, the last refresh and the expiry that it must still have (ms) or nothing twice, the bytes of the first token id, of the
-- one that must be the current one or nothing, and of a new one or nothing, its grace (ms), how many replaced ones are kept,
-- `others` or nothing, and `cluster` or nothing.
-- Returns the outcome, the expiry, and how many other sessions were ended. The outcome is `done`; `no`, if there is no such
-- live session, or it does not meet a condition; `perhaps`, if it does not because an earlier copy of this call may have
-- changed it; or `newer`, if only a newer reader can interpret it.
local key, id, ttl = KEYS[1], ARGV[2], tonumber(ARGV[3])
local first, wanted, new = ARGV[9], ARGV[10], ARGV[11]
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
  if wanted ~= '' and current ~= wanted then
    return { clock, { 'no', 0, 0 } }
  end
  local function expiry_if_refreshed_at(time)
    return parts.ends and math.min(time + ttl, (struct.unpack('>I6', parts.ends))) or time + ttl
  end
  if ARGV[8] ~= '' and (refreshed ~= tonumber(ARGV[7]) or expires ~= tonumber(ARGV[8])) then
    local is_as_wanted = ttl and refreshed >= tonumber(ARGV[7]) and expires == expiry_if_refreshed_at(refreshed)
    return { clock, { is_as_wanted and 'perhaps' or 'no', expires, 0 } }
  end
  if ttl then
    expires, refreshed = expiry_if_refreshed_at(now), now
  end
  if ARGV[4] == 'set' then
    parts.metadata = ARGV[5]
  end
  if ARGV[6] == 'authenticated' then
    parts.authenticated = struct.pack('>I6', now)
  end
  if new ~= '' then
    local replaced = current .. struct.pack('>I6', now + tonumber(ARGV[12])) .. (parts.replaced or '')
    parts.current, parts.replaced = new, replaced:sub(1, 22 * tonumber(ARGV[13]))
  end
  record = build(expires, created, refreshed, parts)
  put(key, id, record)
end
local ended = 0
if ARGV[14] == 'others' then
  ended = redis.call('HLEN', key) - 1
  keep_only(key, id, record, ARGV[15] == 'cluster')
end
return { clock, { 'done', expires, ended } }
