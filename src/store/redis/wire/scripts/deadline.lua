-- Begins every script. ARGV[1] is the time, in microseconds by this server's clock, after which the script does nothing.
-- Every reply begins with the time of the call; a reply with nothing else says that the call came too late.
local clock = redis.call('TIME')
clock = clock[1] * 1000000 + clock[2]
if clock > tonumber(ARGV[1]) then return { clock } end
local now = math.floor(clock / 1000)
