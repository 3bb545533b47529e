-- ARGV: token. One fewer waits.
if redis.call('EXISTS', base .. 'a:' .. ARGV[1]) == 1 then
  redis.call('HINCRBY', base .. 'a:' .. ARGV[1], 'n', -1)
end
return 1
