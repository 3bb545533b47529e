-- Nothing that was asked for before is kept from now on. 1 where there may be something to forget.
local generation = redis.call('HGET', m, 'g')
if not generation then
  wipe()
  return 0
end
redis.call('HSET', m, 'g', string.format('%d', math.max(tonumber(generation) + 1, micros)))
return 1
