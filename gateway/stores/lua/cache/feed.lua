-- ARGV: flight, token, ms of a lease, ms that what came is kept, and what came. How many wait; -1: the lease is lost.
local flight, alive, data = base .. 'f:' .. ARGV[1], base .. 'a:' .. ARGV[2], base .. 'd:' .. ARGV[2]
if redis.call('EXISTS', alive) == 0 then
  return -1
end
for at = 5, #ARGV do
  redis.call('RPUSH', data, ARGV[at])
end
redis.call('PEXPIRE', data, ARGV[4])
redis.call('PEXPIRE', alive, ARGV[3])
if redis.call('GET', flight) == ARGV[2] then
  redis.call('PEXPIRE', flight, ARGV[3])
end
return tonumber(redis.call('HGET', alive, 'n'))
