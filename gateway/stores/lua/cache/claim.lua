-- ARGV: flight, token, ms of a lease, key of the entry, the token of who is too slow ("": nobody).
-- The token of who leads: the own one, another's to follow, or "" where the answer is there by now.
local flight = base .. 'f:' .. ARGV[1]
local leader = redis.call('GET', flight)
if leader and leader ~= ARGV[5] and redis.call('EXISTS', base .. 'a:' .. leader) == 1 then
  redis.call('HINCRBY', base .. 'a:' .. leader, 'n', 1)
  return leader
end
if is_stored(ARGV[4]) then
  return ''
end
redis.call('SET', flight, ARGV[2], 'PX', ARGV[3])
redis.call('HSET', base .. 'a:' .. ARGV[2], 'n', 0)
redis.call('PEXPIRE', base .. 'a:' .. ARGV[2], ARGV[3])
return ARGV[2]
