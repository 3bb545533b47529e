-- ARGV: token, number of the first piece that is wanted. Whether the leader lives, and some of what came.
return {redis.call('EXISTS', base .. 'a:' .. ARGV[1]), redis.call('LRANGE', base .. 'd:' .. ARGV[1], ARGV[2], ARGV[2] + 99)}
