-- What a batch may carry. Every entry checks before it writes: a script that stops half-way is not undone.
local entries = {}
local OWNER

local function told(section, pattern)
    local ok, info = pcall(call, 'INFO', section)
    return ok and string.match(info, pattern) or ''
end

-- Which server this is, and the replication that it took over from others when it became a master last.
local function server_run() return told('server', 'run_id:(%w+)') end
local function server_past() return told('replication', 'master_replid2:(%w+)') end

local function described(key)
    local packed = call('HGET', key, 'd')
    if not packed then return nil end
    return cmsgpack.unpack(packed)
end

-- { "r", op, demands }
function entries.r(e) return reserve(e[2], OWNER, e[3]) end

-- { "h", op, demands }: a hold that stands already, and is made known to a new epoch
function entries.h(e)
    if not hold_of(e[2]) then hold(e[2], OWNER, e[3]) end
    return { 'f' }
end

-- { "c", rows }: parts, as their owners know them
function entries.c(e)
    for _, row in ipairs(e[2]) do apply(row) end
    return { 'f' }
end

-- { "s", op, rows, charge }: give back and book. { "d", credits }: a hold that was thought dead and
-- charged: what is used is booked, and as much of the charge taken off again, so that only what is more counts
function entries.s(e)
    local op, credits = e[2], {}
    local found = hold_of(op)
    if found then
        release(op, found, e[4])
    else
        local charged = call('GET', PREFIX .. 'x:' .. op)
        if charged then
            call('DEL', PREFIX .. 'x:' .. op)
            for _, c in ipairs(cmsgpack.unpack(charged)) do
                local used = math.min(c[3], e[4][UNITS[c[6]]] or 0)
                if used > 0 then credits[#credits + 1] = increase(c[1], '-' .. OWNER, c[2], used, c[4], c[5]) end
            end
        end
    end
    for _, row in ipairs(e[3]) do apply(row) end
    return { 'd', credits }
end

local function bury(op, dead, charges)
    local found = hold_of(op)
    if not found then return {} end
    local rows, marks = {}, {}
    release(op, found, not charges and { 0, 0, 0, 0, 0 })
    for _, d in ipairs(found[2]) do
        if charges and COUNTED[d[2]] and d[4] > 0 then
            local slot, period = 0, 0
            if d[2] == 'rolling' then
                period = d[8]
                slot = slot_of(period)
            end
            rows[#rows + 1] = increase(d[1], 'dead.' .. dead, slot, d[4], d[7], period)
            marks[#marks + 1] = { d[1], slot, d[4], d[7], period, d[3] }
        end
    end
    if #marks > 0 then call('SET', PREFIX .. 'x:' .. op, cmsgpack.pack(marks), 'PX', text(DAY)) end
    return rows
end

-- Charge or free what workers without a lease held, a bounded part of it at a time. Returns the parts that changed,
-- and how many holds there were.
local function bury_dead(charges)
    local rows, count = {}, 0
    local dead = call('ZRANGEBYSCORE', PREFIX .. 'owners', '-inf', text(NOW / 1000), 'LIMIT', 0, 4)
    for _, owner in ipairs(dead) do
        for _, op in ipairs(call('SRANDMEMBER', PREFIX .. 'o:' .. owner, 50)) do
            if hold_of(op) then count = count + 1 end
            for _, row in ipairs(bury(op, owner, charges)) do rows[#rows + 1] = row end
            call('SREM', PREFIX .. 'o:' .. owner, op)
        end
        if call('EXISTS', PREFIX .. 'o:' .. owner) == 0 then call('ZREM', PREFIX .. 'owners', owner) end
    end
    return rows, count
end

-- No lease runs out while the server hears nobody: then it was away itself, and those who hold are on their way back.
local function hear(lease_ms)
    local heard = tonumber(call('HGET', PREFIX .. 'e', 'heard') or NOW)
    local away = (NOW - heard) / 1000 - lease_ms / 3 -- every worker is heard more often than that
    if away > 0 then
        for _, owner in ipairs(call('ZRANGE', PREFIX .. 'owners', 0, -1)) do
            call('ZINCRBY', PREFIX .. 'owners', text(away), owner)
        end
    end
    call('HSET', PREFIX .. 'e', 'heard', text(NOW))
end

local function renew(lease_ms) call('ZADD', PREFIX .. 'owners', text(NOW / 1000 + lease_ms), OWNER) end

-- { "t", lease ms, charges }: { "t", rows, members, how many holds of dead workers were seen to }
function entries.t(e)
    hear(e[2])
    renew(e[2])
    local rows, count = bury_dead(e[3])
    return { 't', rows, call('ZRANGE', PREFIX .. 'owners', 0, 999), count }
end

-- { "n" }: { "v", how much was freed, ever }
function entries.n() return { 'v', tonumber(call('GET', PREFIX .. 'n') or 0) } end

-- { "a", account, part, amount, note }: booked by hand, under a part of its own, so that it counts once.
-- { "a", counts, row, limit, spent, reserved }
function entries.a(e)
    local name, part, amount = e[2], e[3], e[4]
    local key = account_key(name)
    local meta = described(key)
    local slot, period = 0, 0
    local row = { name, part, slot, amount, 0, period }
    if meta then
        if not COUNTED[meta[1]] then return { 'a', false, row, 0, 0, 0 } end
        if meta[1] == 'rolling' then
            period = meta[6]
            slot = slot_of(period)
        end
        row = { name, part, slot, amount, meta[5], period }
    end
    -- Of a rolling account the part is in the slot of its time: the note says that it was booked.
    if call('HSETNX', PREFIX .. 'noted', e[5][1], cmsgpack.pack(row)) == 1 then
        apply(row)
        e[5][#e[5] + 1] = NOW
        call('LPUSH', PREFIX .. 'notes', cmsgpack.pack(e[5]))
        call('LTRIM', PREFIX .. 'notes', 0, 999)
    end
    local found = call('HMGET', key, 's', 'r')
    return { 'a', true, row, meta and meta[3] or 0, tonumber(found[1] or 0), tonumber(found[2] or 0) }
end

-- { "m", accounts }: { account, { rule, unit, limit, since, till, period, burst, label } } each, for people
function entries.m(e)
    for _, m in ipairs(e[2]) do
        local key = account_key(m[1])
        call('HSET', key, 'd', cmsgpack.pack(m[2]))
        if call('PTTL', key) == -1 then keep(key, m[1], m[2][5], m[2][6]) end
    end
    return { 'f' }
end

-- { "k" }: { "k", the operations that this worker holds }
function entries.k() return { 'k', call('SMEMBERS', PREFIX .. 'o:' .. OWNER) } end

-- { "q" }: this worker leaves in order
function entries.q()
    call('ZREM', PREFIX .. 'owners', OWNER)
    return { 'f' }
end
