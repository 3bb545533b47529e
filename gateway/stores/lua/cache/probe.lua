-- Can be written to?
redis.call('SET', base .. 'p', '1', 'PX', 1000)
return 1
