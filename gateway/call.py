"""The vocabulary: what one call is made of. Imports nothing of ours but errors, keys and spend.

A `Call` is a frozen question (`Request`, and what its dialect read in it: `Asked`) to which the stages append
facts: who asked (`Who`), where it went (`Attempt`), what came back (`Answer`) and what that cost (`Money`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from gateway.errors import GatewayError
from gateway.key import Key
from gateway.spend import Hold

PICO_USD = 10**12
"""Money is counted in whole pico-USD: a price per million tokens with six decimals is a whole number of them."""


class UsageSource(enum.StrEnum):
    PROVIDER = "provider"  # the upstream said so
    INJECTED = "injected"  # the upstream said so because we asked it to
    ESTIMATED = "estimated"  # counted here from what passed
    CACHED = "cached"  # of an answer that was given before; nothing was used this time
    NONE = "none"  # the operation has no tokens, or nothing was produced


class Outcome(enum.StrEnum):
    """How a call ended; a metric label."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"  # the upstream answered 4xx or 5xx; relayed
    REFUSED = "refused"  # the gateway said no; nothing was sent upstream
    FAILED = "failed"  # the upstream could not be reached, or answered nonsense or not in time
    TRUNCATED = "truncated"  # cut after the answer had begun
    CANCELLED = "cancelled"  # the client left
    ABANDONED = "abandoned"  # the worker died; written by its supervisor
    ERROR = "error"  # a fault of the gateway itself


class Usage(Struct, frozen=True, omit_defaults=True, gc=False):
    """Tokens of one answer. `input_tokens` includes cache reads and writes; `output_tokens` includes reasoning.

    `detail` holds whatever else the provider counts, under the usage keys of genai-prices (`cache_write_1h_tokens`,
    `input_audio_tokens`, `output_audio_tokens`, `web_searches`, ...). Every number is >= 0.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    detail: dict[str, float] = {}


class ToolUse(Struct, frozen=True, gc=False):
    """A tool call the model asked for."""

    id: str
    name: str


class ToolResult(Struct, frozen=True):
    """The answer to a `ToolUse`, found in a later request."""

    id: str
    is_error: bool = False
    name: str = ""


class ToolCall(Struct, frozen=True, array_like=True, gc=False):
    """A `ToolUse` paired with its `ToolResult`: one execution of a tool, as seen from the gate.

    `duration_ns` is an upper bound (answer sent to result received) unless `exact`.
    """

    id: str
    name: str
    started_at: int  # ns since the epoch
    duration_ns: int
    exact: bool = False
    is_error: bool = False
    server: str = ""  # the configured tool or MCP server, where the execution passed through the gate; then `exact`
    # says whether its result was seen
    cost: int | None = 0  # pico-USD; None: unknown
    cached: bool = False  # nothing ran: its result was known


class Offered(Struct, frozen=True, gc=False):
    """A tool in the list of a server of tools, and what that says of it."""

    name: str
    changes: bool = False  # it is said to change something


class Executed(Struct, frozen=True, gc=False):
    """What came of a `ToolUse` in `Asked.calls`, as its meter saw it."""

    id: str
    name: str
    ran: bool = True  # False: the server refused it, so it did not run
    is_error: bool = False
    units: float | None = None  # what its price counts, where the answer states it


class ToolTurn(Struct, frozen=True, gc=False):
    """A tool call in the newest step of an agent, with what it brought. Fingerprints have 32 bits; 0: unknown."""

    id: str
    name: str  # "" where the body does not hold the call
    call: int  # name and canonical arguments
    shape: int  # the same without digits: what stays when only a counter or a time is changed
    result: int
    failure: int = 0  # of a failed call: name and message without digits


class Step(Struct, frozen=True):
    """What a request brings since the answer before: that answer, the results of its tools, and what the user says."""

    tools: tuple[ToolTurn, ...] = ()
    told: int = 0  # fingerprint of what the user, or the program in their place, said; 0: nothing
    said: int = 0  # fingerprint of the answer's text
    text: str = ""  # the beginning of that text
    key: int = 0  # of all of it: the same request again has the same
    root: int = 0  # of the message that opens the conversation; 0: the body does not hold it
    last: int = 0  # of the item that ends this step,
    before: int = 0  # and of the one that ended the step before; 0: the body does not hold it


class Request(Struct):
    """The question as it came in; never changed. `path` is the raw path with the query, prefixes removed."""

    method: bytes
    path: bytes
    headers: Sequence[tuple[bytes, bytes]]  # order, case and duplicates as received
    body: bytes
    client: str = ""  # peer address
    names: Mapping[bytes, bytes] = {}  # lower-case header name -> its first value
    port: int = 0  # of the peer: tells the connections of one address apart
    facts: dict[str, Any] = {}  # what was made of an equal head before; equal but for its Content-Length
    checks: int = 0  # sent once more by the gateway itself, to check a hit: the ticket of that hit; -1: for `pair`
    pair: Any = None  # stages.learned.Pair: with what its answer is compared


class Route(Struct, frozen=True):
    """What a path means. Decided on the raw path by `policy.routes`."""

    template: str  # low-cardinality name of the route, for metrics and spans: "/v1/chat/completions"
    dialect: str  # key of the dialect that reads it
    operation: str  # gen_ai.operation.name, or "" where no tokens pass
    upstream: str  # name of the configured upstream
    path: bytes  # the raw path (and query) to send there
    run_id: str = ""  # from /run/{run_id}/...
    agent: str = ""  # from /agent/{name}/...
    agent_version: str = ""  # from /version/{version}/...
    budget: bytes = b""  # from /budget/{usd}/...: what the client sets for its run

    def at(self, upstream: str) -> Route:
        """The same at another upstream."""
        return structs.replace(self, upstream=upstream)


class Asked(Struct):
    """What a dialect read in a request body; everything policy may need to know of it.

    Raw values are slices of the body's JSON text, never re-encoded.
    """

    model: str = ""
    stream: bool = False
    max_tokens: int | None = None
    fields: Mapping[str, Any] = {}  # top-level key -> raw JSON value (msgspec.Raw), in order
    spans: Mapping[str, tuple[int, int]] = {}  # top-level key -> (start, end) of its value in the body
    messages: Sequence[Any] = ()  # raw JSON of each message / input item / content, in order (msgspec.Raw)
    system: bytes = b""  # raw JSON of the system prompt or instructions
    tools: bytes = b""  # raw JSON of the tool definitions
    params: Mapping[str, Any] = {}  # temperature, top_p, ... as span attributes want them
    injected: bool = False  # the body sent upstream asks for usage although the client did not
    calls: tuple[ToolUse, ...] = ()  # tools that the request itself calls: those behind this gate
    gated: bool = False  # it goes to a tool, or to a server of tools
    aside: bool = False  # only keeps a session of a client with such a server going; limits do not count it
    plain: bool = False  # something may be taken out of the answer, so it must not be compressed
    trace: bytes = b""  # W3C traceparent that the body states


class Bounds(Struct, frozen=True):
    """What a request may make the provider do: what its worst case is reckoned from. Unknown names stay as written."""

    max_output: int | None = None  # tokens of each choice; None: the client set no limit
    choices: int = 1  # answers made at once
    history: str = ""  # what the provider adds to the input: id of a response, conversation, cached content or prompt
    server_tools: tuple[tuple[str, int], ...] = ()  # (kind, uses at most, 0: no limit) of tools the provider runs
    tools: tuple[str, ...] = ()  # names of the tools the client runs
    pricing: dict[str, str] = {}  # asked for: service_tier, speed, inference_geo


class Answer(Struct):
    """What a meter read in a response body."""

    model: str = ""
    response_id: str = ""
    usage: Usage | None = None
    usage_source: UsageSource = UsageSource.NONE
    pricing: dict[str, str] = {}  # price context: service_tier, speed, inference_geo, processing
    finish_reasons: tuple[str, ...] = ()
    tool_uses: tuple[ToolUse, ...] = ()
    output_chars: int = 0  # text, reasoning and tool arguments seen, in characters: the base of an estimate
    sample: str = ""  # the beginning of the assistant text: how dense in tokens those characters are
    text_digest: bytes = b""  # identity: digest of the normalised assistant text, see policy.identity
    parts: tuple[tuple[Usage, str, dict[str, str]], ...] = ()  # (usage, model, pricing) billed apart from `usage`
    error_type: str = ""  # the provider's own error type, if the answer is an error
    error_message: str = ""
    complete: bool = True  # a stream: its terminal event was seen
    background: bool = False  # accepted for later: its usage comes with a fetch of the response
    refused: bool = False  # the model says in a place of its own (`refusal`) that it will not answer
    executed: tuple[Executed, ...] = ()  # of `Asked.calls`, those whose result was seen
    items: tuple[str, ...] = ()  # ids of output items to which a later request may refer
    offered: tuple[Offered, ...] = ()  # tools listed by a server, of those whose outputs may be given again
    pending: bool = False  # of a session: something was asked for, and what it took was not told


class Who(Struct):
    """Who asked, each fact with where it came from. Filled by `policy.identity`."""

    tenant: str = "default"
    agent: str = ""
    agent_source: str = ""
    agent_version: str = ""
    run_id: str = ""
    run_source: str = ""  # url, header, baggage, vendor, body, previous_response, tool_call, prefix, trace, new
    run_confidence: float = 0.0
    parent_agent: str = ""
    depth: int = 0  # levels of agents above it: 0 for one that no agent started
    step: int = 0
    request_class: str = ""
    conversation_id: str = ""  # only when the client itself stated one (semconv forbids derived values)
    end_user: str = ""
    key_id: str = ""  # of the virtual key it came with
    team: str = ""  # that owns the key


class Trace(Struct):
    """W3C trace context of the call; ids in lower-case hex."""

    trace_id: str = ""
    span_id: str = ""  # of our server span
    parent_id: str = ""  # of the caller's span
    flags: int = 1
    state: str = ""


class Money(Struct, frozen=True):
    """What a call cost, in whole pico-USD. `total` is None where it is unknown; unknown is never zero.

    `status`: priced | no_price | no_usage | free. `components` sum to `total` exactly.
    """

    total: int | None = None
    components: dict[str, int] = {}
    version: str = ""
    status: str = "no_usage"


class Target(Struct, frozen=True, cache_hash=True):
    """Where an attempt goes: one upstream origin, and how to talk to it. The pools look it up twice for each call."""

    upstream: str
    provider: str  # genai-prices provider id, "" when unknown
    host: str
    port: int
    tls: bool
    base_path: bytes  # path prefix of the configured URL, without trailing slash


class Waits(Struct, frozen=True):
    """How long each part of an attempt may take, in seconds."""

    connect: float
    first_byte: float
    first_content: float
    idle: float
    total: float
    ping: float | None = None  # silence at the beginning of a stream after which the client is told to wait on


class Attempt(Struct):
    target: Target
    began: int  # monotonic ns
    ended: int = 0
    status: int = 0
    reused: bool = False  # kept-alive connection
    fault: GatewayError | None = None
    sent: bool = False  # the request was written; before that nothing can have been charged
    waits: Waits | None = None  # None: those of its upstream
    model: str = ""  # asked for
    # of one that another followed:
    cost: int | None = 0  # pico-USD; None: unknown
    usage: Usage | None = None
    usage_source: str = ""


class Edit(Struct, frozen=True):
    """A minimal splice: replace body[start:end] by `text`."""

    start: int
    end: int
    text: bytes
    silent: bool = False  # it changes no answer


class Cached(Struct):
    """What the cache had to say to a call."""

    result: str  # exact | semantic | joined (the answer of an equal call under way) | miss | bypass
    reason: str = ""  # of a bypass
    age: int = -1  # ns since the answer was stored
    saved: int = 0  # pico-USD that the answer cost when it was paid for
    entry: str = ""  # name of the entry
    score: float = 0.0  # of a semantic hit: the chance that it is right


class CacheHealth(Struct, frozen=True, array_like=True, gc=False):
    """What its provider's prompt cache did for a call that could have been read from it; see policy.prompt_cache."""

    readable: int  # tokens that a stable prefix would have let the provider read
    read: int  # tokens that it did
    input: int  # tokens in all
    lost_tokens: int = 0
    lost: int | None = 0  # pico-USD; None: unknown
    cause: str = ""  # changed | reordered | inserted | shortened | model | tool_choice | thinking | ttl | unmarked |
    # provider; "": nothing was lost
    part: str = ""  # tool | system | message | model | tool_choice | thinking: what changed first; "": nothing did
    index: int = -1  # of that tool definition, system block or message, from 0; -1: it has none
    hint: str = ""


class Call(Struct, weakref=True):
    """The one object that travels."""

    id: str
    request: Request
    route: Route
    asked: Asked
    who: Who
    trace: Trace
    started_at: int  # ns since the epoch
    began: int  # monotonic ns: request head complete
    received: int = 0  # monotonic ns: request body complete
    attempts: list[Attempt] = []
    answer: Answer | None = None
    money: Money = Money()
    tools: list[ToolCall] = []
    status: int = 0  # sent to the client; 0 if nothing was sent
    first_byte: int = 0  # monotonic ns: first body byte written to the client
    upstream_first_byte: int = 0
    upstream_last_byte: int = 0
    ended: int = 0
    fault: BaseException | None = None
    trial: Any = None  # ports.Trial, where another attempt could follow the one under way
    booked: int = 0  # attempts whose cost is known and stands in `spent`
    spent: Money | None = None
    queued: int = 0  # ns that it waited for places in pools
    waited: int = 0  # and on purpose for something else; see stages.waiting
    away: bool = False  # it goes to another upstream than its client's credentials are for
    early: bool = False  # it was committed before anything was said
    committed: bool = False  # first byte sent to the client: no retry after this
    interruptible: bool = False  # an error event can be written into the answer under way
    response_bytes: int = 0
    slot: int = -1  # of the in-flight table; -1: not noted there
    via: bytes = b"tollgate"  # name of this gateway in Via
    edits: tuple[Edit, ...] = ()  # splices of the body before it is sent
    model_sent: str = ""  # where an alias stands for another model
    meter: Any = None  # ports.Meter of the answer under way
    translated: Any = None  # ports.OtherAnswer under way; None: the upstream speaks the client's API
    websocket: bool = False
    marks: bool | None = None  # breakpoints for its prompt, where that is on trial; None: as is configured
    check: Any = None  # stages.cascade.Check: what its answer is held against; None: nothing
    promised: bool = False  # its head was sent, with pings behind it: an event stream is to follow, whoever's it is
    further: tuple[Any, ...] = ()  # policy.routing.Target: where else its rule sends it, in order
    hold: Hold | None = None  # of its worst case, in the accounts of budgets and limits
    lines: str = ""  # further x-tollgate-* lines for the client, each with its CRLF
    notes: dict[str, str] = {}
    plain: Request | None = None  # with its body decoded, for reading; None: it is not compressed
    key: Key | None = None  # the virtual key it came with
    cached: Cached | None = None  # None: the cache was not asked
    fill: Any = None  # stages.cache.Fill: collects the answer under way
    prompt_cache: CacheHealth | None = None  # None: it could not hit, or nobody looked
    sight: Callable[[str], bool] | None = None  # whether it may see a tool of a server; None: all of them
    stated: Mapping[bytes, bytes] = {}  # headers of a tool's answer: its units may stand there
    kept: int = 0  # bytes of its answer that are kept for somebody, beside those of content capture
    captured: bytes = b""  # decoded answer body up to `kept` or, while content capture is on, `capture_bytes`
    pair: Any = None  # stages.learned.Pair: another target that is asked the same afterwards, to compare
    seen: bytes = b""  # features of its prompt, where a choice is learned from them: policy.selection_wire
