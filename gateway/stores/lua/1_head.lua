-- One script, put together from the files of this folder: every round trip carries a list of entries, each applied
-- wholly or not at all. Redis is a cache of what the gateways know (see redis_budgets.py), so nothing is granted by a
-- server whose epoch is not the one that the worker has joined.
--
-- KEYS[1] "{prefix}": every key begins with it, so that all of them share one slot of a cluster
-- ARGV[1] msgpack: { epoch, owner, entries }; an entry is { kind, ... }
-- returns msgpack: { status, now, results }; status "ok" or "epoch"
--
-- Numbers are doubles: amounts (nano-USD, tokens) are exact below 2^53; times are microseconds of the server's clock.
--
-- Keys   e            hash: id, run and past (of the server), phase L|O, since, learn, grace, heard
--        owners       zset: worker -> end of its lease, ms        o:<owner>  set of operations it holds
--        want, done   sets: who must, and who did contribute to this epoch
--        h:<op>       msgpack { owner, demands }                  x:<op>     what a dead worker's hold was charged
--        n            counts what was freed                       noted, notes: what people booked by hand
--        a:<account>  hash: s spent, r reserved, c|<part> its parts, d what it is (for people); ROLLING: i (slot last seen), l (last spent in),
--                     S<slot>, C<slot>|<part>;
--                     RATE: b (at, us), o (level of the bucket then, units x us of the period); AGE: f (first, us)
--
-- What is counted, and when it fits, is as gateway/policy/book_rules.py has it.
local PREFIX = KEYS[1] .. ':'
local SLOTS = 60
local DAY = 86400000
local IDLE = 45 * DAY -- a run that was not heard of for so long is forgotten
local call = redis.call

local clock = call('TIME')
local NOW = tonumber(clock[1]) * 1e6 + tonumber(clock[2])

local function text(number)
    if number == 0 then return '0' end -- "%.0f" of a negative zero is no integer to Redis
    return string.format('%.0f', number)
end

local function account_key(name) return PREFIX .. 'a:' .. name end

local function add(key, field, amount)
    if amount ~= 0 then call('HINCRBY', key, field, text(amount)) end
end

-- An account goes a day after its window; what is for life stays, except that of a run.
local function keep(key, name, till, period)
    if till > 0 then
        call('PEXPIREAT', key, text(math.floor(till / 1e6) + DAY))
    elseif period > 0 then
        call('PEXPIRE', key, text(math.floor(period / 1e6) * 2 + DAY))
    elseif string.sub(name, 1, 4) == 'run:' then
        call('PEXPIRE', key, text(IDLE))
    end
end

local function width(period) return math.max(1, math.ceil(period / SLOTS)) / 1000 end -- of a slot, us

local function slot_of(period) return math.floor(NOW / width(period)) end

-- Forget what a rolling account has spent longer than `period` ago; the slot in which the period begins counts in full.
local function advance(key, current)
    local last = tonumber(call('HGET', key, 'i') or current)
    if current <= last then return end
    for _, field in ipairs(call('HKEYS', key)) do
        local kind, slot = string.match(field, '^([SC])(%d+)')
        if kind and tonumber(slot) < current - SLOTS then
            if kind == 'S' then add(key, 's', -tonumber(call('HGET', key, field))) end
            call('HDEL', key, field)
        end
    end
    call('HSET', key, 'i', text(current))
end
