-- The ledger: a projection of the journal. Money is whole pico-USD, NULL where unknown; times are ns since the
-- epoch, durations ns. Any change of a table or of the meaning of a column raises VERSION in ledger.py; an older
-- ledger is then moved aside and made again from the journal.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- How far each reader of the journal has come; written in the transaction of the rows it vouches for.
CREATE TABLE positions (
    reader  TEXT NOT NULL,
    segment TEXT NOT NULL,
    offset  INTEGER NOT NULL,
    PRIMARY KEY (reader, segment)
) WITHOUT ROWID;

CREATE TABLE calls (
    id                 TEXT PRIMARY KEY,
    started_at         INTEGER NOT NULL,
    duration_ns        INTEGER NOT NULL,
    ttft_ns            INTEGER,
    overhead_ns        INTEGER NOT NULL,
    method             TEXT NOT NULL,
    route              TEXT NOT NULL,
    dialect            TEXT NOT NULL,
    operation          TEXT NOT NULL,
    upstream           TEXT NOT NULL,
    provider           TEXT NOT NULL,
    status             INTEGER NOT NULL,
    outcome            TEXT NOT NULL,
    stream             INTEGER NOT NULL,
    model_requested    TEXT NOT NULL,
    model_used         TEXT NOT NULL,
    tenant             TEXT NOT NULL,
    agent              TEXT NOT NULL,
    agent_version      TEXT NOT NULL,
    parent_agent       TEXT NOT NULL,
    run_id             TEXT NOT NULL,
    run_source         TEXT NOT NULL,
    step               INTEGER NOT NULL,
    trace_id           TEXT NOT NULL,
    span_id            TEXT NOT NULL,
    input_tokens       INTEGER,
    output_tokens      INTEGER,
    cache_read_tokens  INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens   INTEGER,
    usage_source       TEXT NOT NULL,
    cost               INTEGER,
    cost_unknown       INTEGER NOT NULL,
    cost_components    TEXT NOT NULL,
    cost_status        TEXT NOT NULL,
    price_version      TEXT NOT NULL,
    error_code         TEXT NOT NULL,
    attempts           TEXT NOT NULL, -- JSON: [[upstream, provider, address, port, offset_ns, duration_ns, ...], ...]
    tools              TEXT NOT NULL, -- JSON: [[id, name, started_at, duration_ns, exact, is_error], ...]
    tool_calls         INTEGER NOT NULL,
    tool_errors        INTEGER NOT NULL,
    tool_uses          TEXT NOT NULL, -- JSON: [{"id", "name"}, ...]
    detail             TEXT NOT NULL, -- JSON: what nobody selects by
    run                INTEGER        -- runs.n; NULL without a run
);
CREATE INDEX calls_time ON calls (started_at);
CREATE INDEX calls_run ON calls (run, started_at);
CREATE INDEX calls_agent ON calls (agent, started_at);
CREATE INDEX calls_tenant ON calls (tenant, started_at);
CREATE INDEX calls_requested ON calls (model_requested, started_at);
CREATE INDEX calls_used ON calls (model_used, started_at) WHERE model_used <> model_requested;
CREATE INDEX calls_outcome ON calls (outcome, started_at) WHERE outcome <> 'ok';

-- Tool executions by the call that brought their result.
CREATE TABLE tools (
    run         INTEGER NOT NULL, -- runs.n; 0 without a run
    call_id     TEXT NOT NULL,
    n           INTEGER NOT NULL,
    tool_id     TEXT NOT NULL,
    name        TEXT NOT NULL,
    agent       TEXT NOT NULL,
    step        INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    exact       INTEGER NOT NULL,
    is_error    INTEGER NOT NULL,
    PRIMARY KEY (run, call_id, n)
) WITHOUT ROWID;

-- Totals of the calls of a run, kept as they come in; always equal to the sums over `calls`. Runs are numbered as
-- they come up: what goes on at the same time lies close together, while ids are scattered. Numbers are no content.
CREATE TABLE runs (
    n                  INTEGER PRIMARY KEY,
    run_id             TEXT NOT NULL UNIQUE,
    first_at           INTEGER NOT NULL, -- start of the earliest call, which also gives tenant, agent and source
    first_id           TEXT NOT NULL,
    last_at            INTEGER NOT NULL, -- end of the last call
    tenant             TEXT NOT NULL,
    agent              TEXT NOT NULL,
    source             TEXT NOT NULL,
    calls              INTEGER NOT NULL,
    errors             INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens   INTEGER NOT NULL,
    cost               INTEGER NOT NULL, -- of the calls whose cost is known
    priced             INTEGER NOT NULL, -- how many those are
    cost_unknown       INTEGER NOT NULL, -- calls that cost something, nobody knows how much
    tool_calls         INTEGER NOT NULL,
    tool_errors        INTEGER NOT NULL,
    steps              INTEGER NOT NULL  -- the highest step number
);
CREATE INDEX runs_time ON runs (first_at);

CREATE TABLE outcomes (
    id     TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    at     INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    value  REAL,
    note   TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX outcomes_run ON outcomes (run_id, at);

-- The last outcome of each run: the one that counts.
CREATE TABLE verdicts (
    run_id TEXT PRIMARY KEY,
    id     TEXT NOT NULL,
    at     INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    value  REAL,
    note   TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE events (
    id     TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    worker INTEGER NOT NULL,
    detail TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX events_time ON events (at);
