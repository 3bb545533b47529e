-- demand: { account, rule, unit, amount, limit, since, till, period, burst, label }, as gateway.spend.Demand; ns
local UNITS = { usd = 1, tokens = 2, calls = 3, tools = 4, steps = 5 }
local COUNTED = { total = true, rolling = true }
local RESERVED = { total = true, rolling = true, slots = true }

local function hold_of(op)
    local packed = call('GET', PREFIX .. 'h:' .. op)
    if not packed then return nil end
    return cmsgpack.unpack(packed)
end

-- RATE: a bucket into which every unit puts the period (us), and `limit` drains each us.
local function micros(d) return math.max(1, math.floor(d[8] / 1000)) end

local function bucket(key, d)
    local found = call('HMGET', key, 'b', 'o')
    if not found[1] then return 0 end
    local passed = NOW - tonumber(found[1])
    if passed < 0 then -- the clock was set back: it drains from now on
        call('HSET', key, 'b', text(NOW))
        passed = 0
    end
    return math.max(0, tonumber(found[2]) - passed * d[5])
end

local function set_bucket(key, d, level, fresh)
    level = math.max(0, level)
    call('HSET', key, 'b', text(NOW), 'o', text(level))
    local empty = d[5] > 0 and level / d[5] / 1000 or 0 -- ms
    if fresh or empty > DAY / 2 then call('PEXPIRE', key, text(math.ceil(math.min(empty, IDLE)) + DAY)) end
end

local function give_back(key, amount)
    local left = call('HINCRBY', key, 'r', text(-amount))
    if left <= 0 then
        if call('HLEN', key) == 1 then call('DEL', key) else call('HDEL', key, 'r') end
    end
end

-- Undo what a hold has reserved; `charge` corrects a RATE to what was used (without one it stays as it is).
local function release(op, hold, charge)
    for _, d in ipairs(hold[2]) do
        local key, rule, amount = account_key(d[1]), d[2], d[4]
        if RESERVED[rule] then
            if amount ~= 0 then give_back(key, amount) end
        elseif rule == 'rate' and charge then
            local used = charge[UNITS[d[3]] or 0] or 0
            if used ~= amount then set_bucket(key, d, bucket(key, d) + (used - amount) * micros(d)) end
        end
    end
    call('DEL', PREFIX .. 'h:' .. op)
    call('SREM', PREFIX .. 'o:' .. hold[1], op)
    call('INCR', PREFIX .. 'n')
end

local function hold(op, owner, demands)
    for _, d in ipairs(demands) do
        if RESERVED[d[2]] and d[4] ~= 0 then
            local key = account_key(d[1])
            -- Where something was reserved before, the account is there already, and knows when it goes.
            if call('HINCRBY', key, 'r', text(d[4])) == d[4] and d[2] ~= 'slots' and call('PTTL', key) == -1 then
                keep(key, d[1], d[7], d[8])
            end
        end
    end
    call('SET', PREFIX .. 'h:' .. op, cmsgpack.pack({ owner, demands }))
    call('SADD', PREFIX .. 'o:' .. owner, op)
end
