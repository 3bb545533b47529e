-- What is spent is the sum of parts: each part is the running total of one worker's life in one account (and slot), kept
-- by that worker, so that whatever arrives twice, late or in another order counts once: the larger total stands.
-- A part whose name begins with "-" is taken off. Part "first" is the time of the first demand: the smaller stands.

local function part_field(part, slot, period)
    if period > 0 then return 'C' .. text(slot) .. '|' .. part end
    return 'c|' .. part
end

local function book(key, part, slot, period, amount)
    if string.sub(part, 1, 1) == '-' then amount = -amount end
    add(key, 's', amount)
    if period > 0 then
        add(key, 'S' .. text(slot), amount)
        call('HSETNX', key, 'i', text(slot_of(period)))
        if slot > tonumber(call('HGET', key, 'l') or 0) then call('HSET', key, 'l', text(slot)) end
    end
end

-- row: { account, part, slot, total, till, period }, times in ns
local function apply(row)
    local name, part, slot, total, till, period = row[1], row[2], row[3], row[4], row[5], row[6]
    local key = account_key(name)
    if part == 'first' then
        local known = tonumber(call('HGET', key, 'f') or total)
        call('HSET', key, 'f', text(math.min(known, total)))
        return keep(key, name, till, 0)
    end
    if till > 0 and till / 1000 + 86400e6 < NOW then return end
    if period > 0 and slot < slot_of(period) - SLOTS then return end
    local field = part_field(part, slot, period)
    local known = call('HGET', key, field)
    local more = total - tonumber(known or 0)
    if more <= 0 then return end
    call('HSET', key, field, text(total))
    book(key, part, slot, period, more)
    if not known or till == 0 then keep(key, name, till, period) end
end

-- Add to a part that Redis itself keeps; returns it as a row, for the worker to remember.
local function increase(name, part, slot, amount, till, period)
    local key = account_key(name)
    local total = call('HINCRBY', key, part_field(part, slot, period), text(amount))
    book(key, part, slot, period, amount)
    keep(key, name, till, period)
    return { name, part, slot, total, till, period }
end
