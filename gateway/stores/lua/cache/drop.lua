-- ARGV: keys. How many of them there were.
local count = 0
for _, key in ipairs(ARGV) do
  local was = redis.call('EXISTS', e .. key)
  if drop(key) then
    count = count + was
  end
end
return count
