-- Stored answers of one tenant, and calls under way that others wait for. KEYS[1] is what all its keys begin with; they
-- share its hash tag, so that one script touches one slot. Put before each of the scripts beside it.
--   m  hash    g generation, b bytes held, t the tenant
--   u  zset    key of an entry -> last use, us         x  zset  key -> when it is over, ms
--   i  hash    key -> "size\n" and what it is chosen by  h  hash  key -> how often it was given again
--   e:KEY      the entry
--   f:FLIGHT   the token of who leads it   a:TOKEN  hash, there while it lives: n who wait   d:TOKEN  list, what has come
-- An entry counts only while it stands in `i`, and `i` only while `m` is there: a server may throw any key away.
local base = KEYS[1]
local m, u, x, i, h, e = base .. 'm', base .. 'u', base .. 'x', base .. 'i', base .. 'h', base .. 'e:'
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local millis = math.floor(micros / 1000)
local SPARE = 3600000 -- ms that the books of a tenant outlive its entries

local function wipe()
  redis.call('UNLINK', u, x, i, h)
  redis.call('HDEL', m, 'b')
end

local function drop(key)
  local facts = redis.call('HGET', i, key)
  if facts then
    redis.call('HINCRBY', m, 'b', '-' .. string.match(facts, '^%d+'))
    redis.call('HDEL', i, key)
  end
  redis.call('HDEL', h, key)
  redis.call('ZREM', u, key)
  redis.call('ZREM', x, key)
  redis.call('UNLINK', e .. key)
  return facts
end

local function is_stored(key)
  return redis.call('HEXISTS', i, key) == 1 and redis.call('EXISTS', e .. key) == 1 and redis.call('EXISTS', m) == 1
end
