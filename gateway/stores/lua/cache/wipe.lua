-- For books that are none: something else has written there.
redis.call('UNLINK', m, u, x, i, h)
return 1
