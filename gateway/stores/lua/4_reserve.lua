-- How a demand stands against its account: fits, spent, reserved, resets (us), free, retry (ns), pending.
-- `held`: what the hold that is to be replaced has of it, less what this operation has taken of it already.
local standing = {}

local function counted(d, spent, reserved, resets, retry)
    local free = d[5] - spent - reserved
    local fits = d[4] <= free
    return fits, spent, reserved, resets, free, retry, d[4] <= d[5] - spent
end

function standing.total(d, held)
    local found = call('HMGET', account_key(d[1]), 's', 'r')
    local retry = 0
    if d[7] > 0 and d[4] <= d[5] then retry = math.max(0, d[7] - NOW * 1000) end
    return counted(d, tonumber(found[1] or 0), tonumber(found[2] or 0) - held, 0, retry)
end

-- Nanoseconds until enough of what was spent is over.
local function ageing(key, d, missing)
    local slots, over = {}, NOW
    for _, field in ipairs(call('HKEYS', key)) do
        local slot = string.match(field, '^S(%d+)')
        if slot then slots[#slots + 1] = tonumber(slot) end
    end
    table.sort(slots)
    for _, slot in ipairs(slots) do
        if missing <= 0 then break end
        missing = missing - tonumber(call('HGET', key, 'S' .. text(slot)))
        over = (slot + SLOTS + 1) * width(d[8])
    end
    return math.max(0, math.ceil(over - NOW)) * 1000
end

function standing.rolling(d, held)
    local key = account_key(d[1])
    advance(key, slot_of(d[8]))
    local found = call('HMGET', key, 's', 'r', 'l')
    local spent, reserved = tonumber(found[1] or 0), tonumber(found[2] or 0) - held
    local missing, retry, resets = d[4] - (d[5] - spent - reserved), 0, 0
    if missing > 0 and d[4] <= d[5] then retry = ageing(key, d, missing) end
    if spent ~= 0 and found[3] then resets = math.ceil((tonumber(found[3]) + SLOTS + 1) * width(d[8])) end
    return counted(d, spent, reserved, resets, retry)
end

function standing.slots(d, held)
    return counted(d, 0, tonumber(call('HGET', account_key(d[1]), 'r') or 0) - held, 0, 0)
end

function standing.rate(d, held)
    local m, limit, burst = micros(d), d[5], d[9]
    if burst == 0 then burst = limit end
    local level = math.max(0, bucket(account_key(d[1]), d) - held * m)
    local free = math.floor((burst * m - level) / m)
    local retry, resets = 0, 0
    if d[4] <= burst and limit > 0 then retry = math.max(0, math.ceil((level + (d[4] - burst) * m) / limit)) * 1000 end
    if level > 0 and limit > 0 then resets = NOW + math.ceil(level / limit) end
    return d[4] <= free, math.ceil(level / m), 0, resets, free, retry, false
end

function standing.age(d)
    local first = tonumber(call('HGET', account_key(d[1]), 'f') or NOW)
    local age = NOW - first
    return age <= d[5] * 1e6, math.floor(age / 1e6), 0, 0, d[5] - math.ceil(age / 1e6), 0, false
end

function standing.level(d)
    return d[4] <= d[5], 0, 0, 0, d[5], 0, false
end

local function held_before(hold)
    local held = {}
    if hold then
        for _, d in ipairs(hold[2]) do held[d[1]] = (held[d[1]] or 0) + d[4] end
    end
    return held
end

local function let_go(op, before)
    for _, d in ipairs(before[2]) do
        local key = account_key(d[1])
        if RESERVED[d[2]] then
            if d[4] ~= 0 then give_back(key, d[4]) end
        elseif d[2] == 'rate' then
            set_bucket(key, d, bucket(key, d) - d[4] * micros(d))
        end
    end
    call('SREM', PREFIX .. 'o:' .. before[1], op)
end

-- What is no reservation: the bucket of a RATE, the first time of an AGE. (`hold` does the rest.)
local function take(d)
    local key = account_key(d[1])
    if d[2] == 'rate' then
        local level = bucket(key, d)
        set_bucket(key, d, level + d[4] * micros(d), level == 0)
    elseif d[2] == 'age' and call('HSETNX', key, 'f', text(NOW)) == 1 then
        keep(key, d[1], d[7], 0)
    end
end

-- { "g", { { spent, reserved, resets }, ... } } or { "n", index, { spent, reserved, resets }, free, retry, pending, freed }
local function reserve(op, owner, demands)
    local before = hold_of(op)
    local held = held_before(before)
    local levels, free, refused, retry, pending = {}, {}, nil, 0, true
    for i, d in ipairs(demands) do
        local own = held[d[1]] or 0
        local fits, spent, reserved, resets, room, wait, helps = standing[d[2]](d, own)
        free[i] = math.max(0, room)
        levels[i] = { spent, reserved, resets }
        if fits then
            held[d[1]] = own - d[4]
            if d[2] == 'rate' then levels[i][1] = spent + d[4] end
        else
            pending = pending and helps
            if not refused then refused, retry = i, wait
            elseif wait == 0 or retry == 0 then retry = 0
            else retry = math.max(retry, wait) end
        end
    end
    if refused then
        local freed = tonumber(call('GET', PREFIX .. 'n') or 0)
        return { 'n', refused - 1, levels[refused], free, retry, pending, freed }
    end
    if before then let_go(op, before) end
    for i, d in ipairs(demands) do
        take(d)
        if RESERVED[d[2]] or d[2] == 'level' then levels[i][2] = levels[i][2] + d[4] end
    end
    hold(op, owner, demands)
    return { 'g', levels }
end
