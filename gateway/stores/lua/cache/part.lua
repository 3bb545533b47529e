-- ARGV: flight, token. Nobody new follows; who does is served on.
local flight = base .. 'f:' .. ARGV[1]
if redis.call('GET', flight) == ARGV[2] then
  redis.call('DEL', flight)
end
return 1
