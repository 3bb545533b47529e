-- ARGV: key, generation, entry, ms that it is good, bytes it takes beside, most bytes of the tenant, what it is chosen by.
-- 1 where it was kept. What was used least lately goes for it.
local key, ttl, most = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[6])
local size = #ARGV[3] + #ARGV[7] + ARGV[5]
if #ARGV[3] == 0 or #ARGV[7] == 0 or size > most or redis.call('HGET', m, 'g') ~= ARGV[2] then
  return 0
end
for _, over in ipairs(redis.call('ZRANGEBYSCORE', x, '-inf', millis, 'LIMIT', 0, 64)) do
  drop(over)
end
drop(key)
redis.call('SET', e .. key, ARGV[3], 'PX', ttl)
redis.call('ZADD', u, micros, key)
redis.call('ZADD', x, millis + ttl, key)
redis.call('HSET', i, key, size .. '\n' .. ARGV[7])
local held = redis.call('HINCRBY', m, 'b', size)
while held > most do
  local oldest = redis.call('ZRANGE', u, 0, 0)[1]
  if not oldest or not drop(oldest) then
    wipe() -- some of the books were lost: begin anew
    return 0
  end
  held = tonumber(redis.call('HGET', m, 'b'))
end
for _, book in ipairs({m, u, x, i, h}) do
  if redis.call('PTTL', book) < ttl + SPARE then
    redis.call('PEXPIRE', book, ttl + SPARE)
  end
end
return 1
