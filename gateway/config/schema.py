"""The configuration file, as frozen types. One flat YAML; every field has a default but what nobody can guess.

Durations are seconds, sizes bytes. A value `$NAME` anywhere in a secret field is read from the environment.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from gateway.config.schema_base import Config_, Count, Name, Seconds, Share
from gateway.config.schema_bulkheads import Bulkhead, Overload, PriorityRule
from gateway.config.schema_resilience import Breakers, Fallback, Goal, Hedging, Retries, TimeoutRule, Timeouts
from gateway.config.schema_routing import Route
from gateway.config.schema_semantic import SemanticCache
from gateway.config.schema_slo import Slo

# imported from here
__all__ = ["Breakers", "Bulkhead", "Config_", "Count", "Fallback", "Goal", "Hedging", "Name", "Overload"]
__all__ += ["PriorityRule", "Retries", "Seconds", "SemanticCache", "Share", "TimeoutRule", "Timeouts"]

DialectName = Literal["openai", "anthropic", "gemini", "bedrock", "cohere", "ollama", "opaque"]


class Tls(Config_, frozen=True):
    certificate: str
    key: str


class Upstream(Config_, frozen=True):
    secret: ClassVar[frozenset[str]] = frozenset({"key", "headers"})

    dialect: DialectName
    url: str  # https://api.openai.com (with or without /v1; paths are appended as the dialect's clients expect)
    key: str | None = None  # "$OPENAI_API_KEY"; None: the client's own key passes through
    headers: dict[str, str] = {}
    timeouts: Timeouts = Timeouts()
    ca_file: str | None = None
    provider: str | None = None  # genai-prices provider id; guessed from the url, else the name of the upstream
    inject_usage: bool = True
    on_client_gone: Literal["cancel", "drain"] | None = None  # None: as the provider bills, see `drains`
    drain_seconds: Seconds = 30  # bound of `drain` in time
    drain_usd: Annotated[float, Meta(ge=0)] = 0.25  # and in cost
    propagate_trace: bool = False  # send traceparent upstream
    droppable: tuple[str, ...] = ()  # fields of translated requests that may be left out


class Alias(Config_, frozen=True):
    model: str
    upstream: Name | None = None


class Price(Config_, frozen=True):
    """Override: USD per million tokens (requests: per thousand). Unset components follow input/output."""

    input: Annotated[float, Meta(ge=0)] | None = None
    output: Annotated[float, Meta(ge=0)] | None = None
    cache_read: Annotated[float, Meta(ge=0)] | None = None
    cache_write: Annotated[float, Meta(ge=0)] | None = None
    cache_write_1h: Annotated[float, Meta(ge=0)] | None = None
    reasoning: Annotated[float, Meta(ge=0)] | None = None
    input_audio: Annotated[float, Meta(ge=0)] | None = None
    output_audio: Annotated[float, Meta(ge=0)] | None = None
    requests: Annotated[float, Meta(ge=0)] | None = None
    web_searches: Annotated[float, Meta(ge=0)] | None = None


class Prices(Config_, frozen=True):
    models: dict[str, Price] = {}  # "model", "provider/model" or "upstream/model"
    litellm_file: str | None = None  # a file in LiteLLM's model_prices format


class Identity(Config_, frozen=True):
    tenant: Name = "default"
    tenant_header: str | None = None
    run_header: str | None = None
    agent_header: str | None = None
    links: Count = 65_536  # bound of what is remembered to join the calls of a run
    run_idle_seconds: Seconds = 3600  # a run without calls for so long is over; derived joins go no further back


class Journal(Config_, frozen=True):
    directory: str | None = None  # default: <state directory>/journal
    segment_bytes: Annotated[int, Meta(ge=65_536)] = 67_108_864
    retention_bytes: Annotated[int, Meta(ge=1_048_576)] = 4_294_967_296
    retention_days: Annotated[float, Meta(gt=0)] = 30
    required: bool = False  # refuse calls that cannot be written down
    fsync: bool = False  # fsync every record (power loss); a kill of any process never needs it


class Otlp(Config_, frozen=True):
    secret: ClassVar[frozenset[str]] = frozenset({"headers"})

    endpoint: str  # http://127.0.0.1:4318
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: dict[str, str] = {}
    metrics: bool = True
    traces: bool = True


class Sampling(Config_, frozen=True):
    """What is always kept: errors, slow, expensive, first-seen models. The rest shares a budget."""

    traces_per_second: Annotated[float, Meta(ge=0)] = 10
    slow_seconds: Seconds = 30
    expensive_usd: Annotated[float, Meta(ge=0)] = 1


class Telemetry(Config_, frozen=True):
    otlp: Otlp | None = None  # also from OTEL_EXPORTER_OTLP_ENDPOINT
    sampling: Sampling = Sampling()
    legacy_attributes: bool = False  # also write gen_ai.system, gen_ai.usage.cache_creation.input_tokens
    conventions: tuple[Literal["openinference", "mlflow"], ...] = ()  # also write the span attributes of these
    log: str | None = "stdout"  # one wide JSON line per call: "stdout", a file path, or null
    label_limit: Count = 200  # values per metric label before __other__


ScopeName = Literal["global", "team", "key", "agent", "run", "model", "upstream"]
Per = Literal["minute", "hour", "day", "week", "month", "life"]
Usd = Annotated[float, Meta(gt=0, le=9_000_000, title="number of US dollars")]
OnExceed = Literal["refuse", "clamp", "queue"]


class TaperStep(Config_, frozen=True):
    """From this share of a budget on: a cheaper way to go on."""

    at: Share
    effort: Literal["minimal", "low", "medium"] | None = None  # the reasoning effort asked for, at most
    model: str | None = None  # an alias or a model, in place of the one asked for
    max_tokens: Count | None = None  # at most so many tokens of output
    stop: bool = False


class Budget(Config_, frozen=True):
    """A limit in money or tokens. `match` is a name of that scope, with * as wildcard; each match counts by itself."""

    scope: ScopeName
    match: str = "*"
    usd: Usd | None = None
    tokens: Count | None = None
    per: Per = "month"
    rolling: bool = False  # the last hour, day, ... instead of the calendar's
    on_exceed: OnExceed = "refuse"
    soft: bool = False  # reserve what such a call usually costs (p95) in place of its worst case
    taper: tuple[TaperStep, ...] = ()


class Runs(Config_, frozen=True):
    """Limits of every run; a client may only tighten them (x-tollgate-budget-usd)."""

    budget_usd: Usd | None = None
    max_calls: Count | None = None
    max_steps: Count | None = None
    max_tools: Count | None = None
    max_minutes: Annotated[float, Meta(gt=0)] | None = None
    max_depth: Annotated[int, Meta(ge=0)] | None = None
    on_exceed: OnExceed = "refuse"
    taper: tuple[TaperStep, ...] = ()


class Rates(Config_, frozen=True):
    """Requests and tokens per minute, and calls at once, of one scope."""

    scope: ScopeName = "key"
    match: str = "*"
    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None
    burst: Count | None = None  # requests at once; default: a sixth of a minute's


LoopAction = Literal["off", "note", "warn", "downshift", "stop"]


class Loops(Config_, frozen=True):
    """The breaker for runaway agents: what is done at each sign of one; see gateway.policy.loop."""

    window: Annotated[int, Meta(ge=4, le=32)] = 20  # steps looked back on: so many fit into what is remembered of a run
    repeats: Annotated[int, Meta(ge=2)] = 5  # the same tool call so often
    period: Annotated[int, Meta(ge=1, le=16)] = 4  # of a cycle, at most
    repeated_call: LoopAction = "note"
    cycle: LoopAction = "note"
    error_ping_pong: LoopAction = "note"
    no_new_information: LoopAction = "note"
    call_rate: LoopAction = "note"
    spend_rate: LoopAction = "note"
    depth: LoopAction = "note"
    max_depth: Count = 8
    rate_factor: Annotated[float, Meta(gt=1)] = 10  # times the run's own or the agent's usual rate
    downshift_to: TaperStep | None = None


class PromptCache(Config_, frozen=True):
    """The prompt caches of providers; see docs/prompt-cache.md."""

    health: bool = True  # hit ratio, what changed in a prefix, what that cost
    breakpoints: bool = False  # set `cache_control` where the API needs it and the client set none


class Spending(Config_, frozen=True):
    """How budgets are kept."""

    secret: ClassVar[frozenset[str]] = frozenset({"redis"})

    redis: str | None = None  # redis://host:6379/0 for many machines; null: a SQLite file of this one
    prefix: Name = "tollgate"  # of every key in Redis
    timeout: Annotated[float, Meta(gt=0, le=10)] = 0.05  # seconds that Redis may take
    on_failure: Literal["closed", "open"] = "closed"  # while the store is away: refuse, or allow a local share
    local_share: Share = 0.02  # of each limit, per worker, while `open` and the store is away
    on_dead_worker: Literal["charge", "free"] = "charge"  # what a killed worker had reserved
    lease_seconds: Annotated[float, Meta(ge=1, le=3600)] = 15  # a worker that does not renew for so long is dead
    unknown_price: Literal["deny", "ceiling", "allow"] = "deny"  # of a model under a budget in USD
    ceiling_usd: Annotated[float, Meta(gt=0)] = 1  # `ceiling`: a call without a price is held to cost so much
    output_ceiling: Count = 32_768  # tokens, where neither the client nor the catalogue names one
    clamp_floor: Count = 256  # `clamp` never lowers max_tokens below
    queue_seconds: Seconds = 20  # `queue` waits so long at most
    on_overrun: Literal["stop", "finish"] = "stop"  # a stream that reaches what was reserved for it
    timezone: str = "UTC"  # of calendar windows


Lifetime = Annotated[float, Meta(gt=0, le=31_536_000, title="number of seconds")]
Sampled = Literal["none", "unstated", "all"]


class CacheRule(Config_, frozen=True):
    """What is different for the calls that match all of its patterns; the first rule that matches counts."""

    route: str = "*"  # as records have it: /v1/chat/completions
    upstream: str = "*"
    model: str = "*"  # as asked for, or as an alias has it
    agent: str = "*"
    tenant: str = "*"
    enabled: bool = True
    ttl: Lifetime | None = None
    tools: bool | None = None
    sampled: Sampled | None = None


class ExactCache(Config_, frozen=True):
    """Answers to equal requests; see gateway.policy.cache_rules."""

    enabled: bool = False  # for calls that no rule matches
    ttl: Lifetime = 3600
    jitter: Share = 0.1  # of the lifetime, by which it may be shorter
    tools: bool = False  # also answers that call tools, and requests that let the provider run some
    sampled: Sampled = "unstated"  # temperature above 0 without seed: never, where it is not stated, always
    rules: tuple[CacheRule, ...] = ()


class Cache(Config_, frozen=True):
    """Answers already paid for. Nothing is cached until it is enabled."""

    secret: ClassVar[frozenset[str]] = frozenset({"redis"})

    store: Literal["sqlite", "redis"] = "sqlite"  # a file of this machine, or what many machines share
    redis: str | None = None  # with `store: redis`; null: that of `spending`
    timeout: Annotated[float, Meta(gt=0, le=10)] = 0.05  # seconds that Redis may take
    exact: ExactCache = ExactCache()
    semantic: SemanticCache = SemanticCache()
    single_flight: bool = True  # of equal calls at once, where answers are cached, one goes upstream
    flight_seconds: Seconds = 30  # to wait for the first byte of another's answer
    version: Annotated[str, Meta(max_length=64)] = "1"  # another one: nothing stored before is found
    ignore_headers: tuple[str, ...] = ()  # of clients, that change no answer
    tenant_bytes: Annotated[int, Meta(ge=65_536)] = 268_435_456  # on disk, of each tenant
    memory_bytes: Annotated[int, Meta(ge=0)] = 33_554_432  # of each worker
    entry_bytes: Annotated[int, Meta(ge=1024)] = 4_194_304  # larger answers are not stored
    pace: Annotated[float, Meta(ge=0, le=10_000)] = 0  # events per second of a replayed stream; 0: at once


class ToolPrice(Config_, frozen=True):
    """Of each call; or of each unit that the answer states in a header or in a field of its JSON."""

    usd: Annotated[float, Meta(ge=0, le=10_000, title="number of US dollars")]
    unit_header: str | None = None
    unit_field: str | None = None  # "usage.credits", "data.0.cost"; of an MCP server, within the result
    max_units: Count = 1  # held while the answer is not there


class ToolCache(Config_, frozen=True):
    """Outputs of an HTTP tool that are given again."""

    ttl: Lifetime  # of what no pattern matches
    paths: dict[str, Annotated[float, Meta(ge=0, le=31_536_000)]] = {}  # pattern: seconds, 0: never; first match counts
    override: bool = False  # keep for so long also what the tool says is good for less


class McpCache(Config_, frozen=True):
    """Results of tools of an MCP server that are given again."""

    tools: dict[str, Lifetime]  # name with * as wildcard: seconds; the first that fits counts
    shared: bool = False  # the sessions of a client share them


Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class Tool(Config_, frozen=True):
    """An HTTP tool, behind /tools/{name}."""

    secret: ClassVar[frozenset[str]] = frozenset({"key", "headers"})

    url: str  # the only origin it is asked at; no redirect is followed
    key: str | None = None  # sent as a bearer token
    headers: dict[str, str] = {}
    methods: tuple[Method, ...] = ("GET", "POST")
    paths: tuple[str, ...] = ("/**",)  # below `url`; * is a part of a segment, a last ** all that follows
    price: ToolPrice | None = None  # None: costs nothing
    timeout: Seconds = 30  # of a whole call
    read_only: bool = False  # its calls change nothing, so one may be sent again
    cache: ToolCache | None = None
    allow_private: bool = False  # the origin may have a loopback or private address
    ca_file: str | None = None
    propagate_trace: bool = False


class McpServer(Config_, frozen=True):
    """An MCP server that speaks streamable HTTP, behind /mcp/{name}."""

    secret: ClassVar[frozenset[str]] = frozenset({"key", "headers"})

    url: str  # its one endpoint
    key: str | None = None  # sent as a bearer token; None: the client's own credentials pass
    headers: dict[str, str] = {}
    allow: tuple[str, ...] = ("*",)  # tools that may be seen and called, by name with * as wildcard
    deny: tuple[str, ...] = ()  # tools that may not, in any letter case
    price: ToolPrice | None = None  # of a tool call; None: costs nothing
    prices: dict[str, ToolPrice] = {}  # of single tools, by name with * as wildcard; the first that fits counts
    cache: McpCache | None = None
    timeouts: Timeouts = Timeouts(first_content=86_400, idle=3600, total=86_400)  # as long as sessions
    allow_private: bool = False
    ca_file: str | None = None
    propagate_trace: bool = False


class Limits(Config_, frozen=True):
    body_bytes: Count = 67_108_864
    header_bytes: Count = 65_536
    headers: Count = 200
    header_seconds: Seconds = 10
    body_seconds: Seconds = 120  # without progress
    write_seconds: Seconds = 60  # a client that takes nothing for so long is cut
    keepalive_seconds: Seconds = 75
    connections: Count = 10_000
    drain_seconds: Seconds = 30
    lame_duck_seconds: Annotated[float, Meta(ge=0, le=600)] = 0  # unready, but still accepting, before the drain
    rpm: Count | None = None  # requests per minute of each key
    tpm: Count | None = None  # tokens per minute of each key
    concurrency: Count | None = None  # calls at once of each key
    rates: tuple[Rates, ...] = ()  # the same of other scopes


class Config(Config_, frozen=True):
    secret: ClassVar[frozenset[str]] = frozenset({"admin_token"})

    listen: str = "127.0.0.1:8787"
    admin: str = "127.0.0.1:8788"
    admin_token: str | None = None  # required where admin is not on loopback
    allowed_origins: tuple[str, ...] = ()
    tls: Tls | None = None
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    state: str | None = None  # state directory; default $XDG_STATE_HOME/tollgate
    upstreams: dict[Name, Upstream] = {}
    aliases: dict[str, Alias | str] = {}
    routes: tuple[Route, ...] = ()
    timeouts: tuple[TimeoutRule, ...] = ()
    retries: Retries = Retries()
    fallbacks: tuple[Fallback, ...] = ()
    breakers: Breakers = Breakers()
    hedging: Hedging = Hedging()
    priorities: tuple[PriorityRule, ...] = ()
    bulkheads: dict[Name, Bulkhead] = {}
    overload: Overload = Overload()
    prices: Prices = Prices()
    identity: Identity = Identity()
    capture: Literal["off", "hash", "full"] = "off"
    capture_bytes: Count = 65_536
    cost_header: bool = True
    stream_cost_comment: bool = False
    journal: Journal = Journal()
    telemetry: Telemetry = Telemetry()
    limits: Limits = Limits()
    budgets: tuple[Budget, ...] = ()
    runs: Runs = Runs()
    loops: Loops = Loops()
    spending: Spending = Spending()
    cache: Cache = Cache()
    prompt_cache: PromptCache = PromptCache()
    tools: dict[Name, Tool] = {}
    mcp: dict[Name, McpServer] = {}
    slos: tuple[Slo, ...] = ()
