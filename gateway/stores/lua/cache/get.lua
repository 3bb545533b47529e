-- ARGV: key, tenant. The generation, and the entry where there is one.
local generation = redis.call('HGET', m, 'g')
if not generation then
  wipe()
  generation = string.format('%d', micros)
  redis.call('HSET', m, 'g', generation, 't', ARGV[2])
  redis.call('PEXPIRE', m, SPARE)
  return {generation}
end
local key = ARGV[1]
local value = redis.call('GET', e .. key)
if value and redis.call('HEXISTS', i, key) == 1 then
  redis.call('ZADD', u, micros, key)
  redis.call('HINCRBY', h, key, 1)
  return {generation, value}
end
return {generation}
