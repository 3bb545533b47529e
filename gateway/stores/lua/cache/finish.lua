-- ARGV: flight, token, ms that what came is kept, and the last that came. Only what is one's own is deleted.
local flight, alive, data = base .. 'f:' .. ARGV[1], base .. 'a:' .. ARGV[2], base .. 'd:' .. ARGV[2]
if redis.call('GET', flight) == ARGV[2] then
  redis.call('DEL', flight)
end
local waiting = redis.call('HGET', alive, 'n')
redis.call('DEL', alive)
if not waiting or waiting == '0' then
  redis.call('UNLINK', data)
  return 0
end
for at = 4, #ARGV do
  redis.call('RPUSH', data, ARGV[at])
end
redis.call('PEXPIRE', data, ARGV[3])
return 1
