-- Breakers of many gateways. ARGV: who tells, ms that news is kept, then for each: name, 1 where it was opened (0: it has
-- healed), ms that it stays open. All that others have told: name, opened, ms left, ms since, flat.
--   s  hash    name -> "opened until at who", in ms of this server's clock
local states = base .. 's'
local kept = tonumber(ARGV[2])
for at = 3, #ARGV, 3 do
  local left = math.floor(tonumber(ARGV[at + 2]))
  redis.call('HSET', states, ARGV[at], string.format('%s %.0f %.0f %s', ARGV[at + 1], millis + left, millis, ARGV[1]))
end
if #ARGV > 2 then
  redis.call('PEXPIRE', states, kept)
end
local found, known = {}, redis.call('HGETALL', states)
for at = 1, #known, 2 do
  local opened, untill, told, who = string.match(known[at + 1], '^([01]) (%d+) (%d+) (.+)$')
  if not opened or millis - tonumber(told) > kept then
    redis.call('HDEL', states, known[at])
  elseif who ~= ARGV[1] then
    found[#found + 1] = known[at]
    found[#found + 1] = tonumber(opened)
    found[#found + 1] = math.max(0, tonumber(untill) - millis)
    found[#found + 1] = math.max(0, millis - tonumber(told))
  end
end
return found
