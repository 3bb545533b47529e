-- An epoch is one server with one unbroken memory. Where there is none (flushed), or its server is another one (a
-- restart, a replica that took over) or was a replica in between (and has the memory of another), a new one begins with
-- learning: nothing is granted until every worker that is known has contributed, and every worker alive had the time to
-- notice (`grace`), or until `learn` is over.

local function learned()
    local found = call('HMGET', PREFIX .. 'e', 'phase', 'since', 'learn', 'grace')
    if found[1] == 'O' then return 'O' end
    local age = NOW / 1000 - tonumber(found[2])
    local missing = #call('SDIFF', PREFIX .. 'want', PREFIX .. 'done')
    if age >= tonumber(found[3]) or (missing == 0 and age >= tonumber(found[4])) then
        call('HSET', PREFIX .. 'e', 'phase', 'O')
        call('DEL', PREFIX .. 'want', PREFIX .. 'done')
        return 'O'
    end
    return 'L'
end

-- The policy by which this server may throw keys away; '' where it does not.
local function eviction()
    local ok, info = pcall(call, 'INFO', 'memory')
    if not ok or string.match(info, '\nmaxmemory:0') then return '' end
    local policy = string.match(info, 'maxmemory_policy:([%w-]+)') or ''
    return policy == 'noeviction' and '' or policy
end

-- { "j", fresh id, members, lease ms, learn ms, grace ms }: { "j", epoch, phase, eviction policy }
function entries.j(e)
    local run, past = server_run(), server_past()
    local found = call('HMGET', PREFIX .. 'e', 'id', 'run', 'past')
    local id = found[1]
    if not id or found[2] ~= run or found[3] ~= past then
        id = e[2]
        call('DEL', PREFIX .. 'want', PREFIX .. 'done')
        for _, member in ipairs(call('ZRANGE', PREFIX .. 'owners', 0, -1)) do call('SADD', PREFIX .. 'want', member) end
        call('HSET', PREFIX .. 'e', 'id', id, 'run', run, 'past', past, 'phase', 'L', 'since', text(NOW / 1000),
            'learn', text(e[5]), 'grace', text(e[6]))
    end
    renew(e[4])
    if call('HGET', PREFIX .. 'e', 'phase') == 'L' then
        call('SADD', PREFIX .. 'want', OWNER, unpack(e[3]))
    end
    return { 'j', id, learned(), eviction() }
end

-- { "w", owners }: they have contributed all that they know
function entries.w(e)
    if call('HGET', PREFIX .. 'e', 'phase') == 'L' then call('SADD', PREFIX .. 'done', OWNER, unpack(e[2])) end
    return { 'f' }
end

local function current(epoch, kind)
    if kind == 'j' then return true end
    local found = call('HMGET', PREFIX .. 'e', 'id', 'run', 'past')
    return found[1] == epoch and (kind ~= 't' or (found[2] == server_run() and found[3] == server_past()))
end

local function main(epoch, owner, list)
    OWNER = owner
    local results, kind = {}, list[1] and list[1][1]
    if not current(epoch, kind) then return { 'epoch', NOW, results } end
    -- A worker that was thought dead and goes on: what it holds must be watched again.
    if kind ~= 'j' and kind ~= 'q' then call('ZADD', PREFIX .. 'owners', 'NX', text(NOW / 1000 + 15000), OWNER) end
    for i, e in ipairs(list) do results[i] = entries[e[1]](e) end
    return { 'ok', NOW, results }
end

return cmsgpack.pack(main(unpack(cmsgpack.unpack(ARGV[1]))))
