"""What the API answers: the OpenAPI document is made from these types, and every answer is one of them.

Money is US dollars as a JSON number, made from whole pico-USD; null where unknown, never zero. Times are RFC 3339 in
UTC; durations milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.prompt_cache_views import CallPromptCacheView, RunPromptCacheView

Usd = Annotated[float | None, Meta(description="US dollars; null where unknown.")]
Time = Annotated[str, Meta(description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"})]
Next = Annotated[str | None, Meta(description="Pass it as `cursor` for the next page; null on the last one.")]


class UsageView(Struct, kw_only=True):
    """Tokens. Input includes cache reads and writes, output includes reasoning; `detail` is what else was counted."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    detail: dict[str, float] = {}


class AttemptView(Struct, kw_only=True):
    """One request sent upstream. `status` is null where no answer came."""

    upstream: str
    provider: str | None
    address: str
    port: int
    offset_ms: float
    duration_ms: float
    status: int | None
    reused: bool
    error_code: str | None
    model: str | None
    cost_usd: Annotated[
        float | None, Meta(description="Of an attempt that another one followed; null where unknown, or the last.")
    ]


class ToolCallView(Struct, kw_only=True):
    """A tool execution whose result this request brought. The duration is an upper bound unless `exact`."""

    id: str
    name: str
    started_at: Time
    duration_ms: float
    exact: bool
    is_error: bool
    server: str = ""
    cached: bool = False


class ToolUseView(Struct, kw_only=True):
    """A tool call that the model asked for in this answer."""

    id: str
    name: str


class ErrorView(Struct, kw_only=True):
    """What went wrong: our stable code, the provider's own type, and who is to blame."""

    source: str | None
    code: str | None
    type: str | None
    message: str | None


class CallBudgetView(Struct, kw_only=True):
    """What the budgets and limits made of a call. `account` is the one that did not simply grant it."""

    decision: Annotated[str, Meta(description="granted, queued, clamped, tapered, refused or stopped.")]
    account: str | None
    reserved_usd: Annotated[float, Meta(description="Held while the call was under way: its worst case.")]
    remaining_usd: Annotated[Usd, Meta(description="Left beside that in the tightest budget; null: none in money.")]
    clamped_to: Annotated[int | None, Meta(description="Tokens of output it was lowered to.")]
    taper: Annotated[str | None, Meta(description="The step down that applied, and of which account.")]


class CallCacheView(Struct, kw_only=True):
    """What the cache had to say to a call."""

    result: Annotated[str, Meta(description="exact, joined (the answer of an equal call under way), miss or bypass.")]
    reason: Annotated[str | None, Meta(description="Of a bypass; of a miss, why its answer was not kept.")]
    age_ms: Annotated[float | None, Meta(description="Since the answer was stored.")]
    entry: Annotated[str | None, Meta(description="Name of the stored answer.")]
    saved_usd: Annotated[float, Meta(description="What the answer cost when it was paid for.")]


class CallLoopView(Struct, kw_only=True):
    """Signs that the run of this call goes round in circles, and what they led to."""

    signals: list[str]
    reason: str | None
    action: Annotated[str, Meta(description="note, warn, downshift or stop.")]


class CallView(Struct, kw_only=True):
    """One call."""

    id: str
    run_id: str | None
    run_source: str | None
    run_confidence: float
    agent: str | None
    agent_source: str | None
    agent_version: str | None
    parent_agent: str | None
    tenant: str
    key_id: Annotated[str | None, Meta(description="Of the virtual key it came with.")]
    step: int
    depth: Annotated[int, Meta(description="Levels of agents above the one that made the call.")]
    request_class: str | None
    conversation_id: str | None
    end_user: str | None
    method: str
    route: str
    dialect: str
    operation: str | None
    upstream: str
    provider: str | None
    model_requested: str | None
    model_used: str | None
    status: Annotated[int, Meta(description="HTTP status sent to the client; 0 where none was.")]
    outcome: str
    error: ErrorView | None
    stream: bool
    websocket: bool
    attempts: list[AttemptView]
    usage: UsageView
    usage_source: Literal["provider", "injected", "estimated", "cached", "none"]
    cost_usd: Usd
    cost_components: dict[str, float]
    cost_status: str
    price_version: str | None
    budget: Annotated[CallBudgetView | None, Meta(description="Null where no limit was asked.")]
    cache: Annotated[CallCacheView | None, Meta(description="Null where it was not asked.")]
    loop: CallLoopView | None
    prompt_cache: Annotated[CallPromptCacheView | None, Meta(description="Null where it could not have hit.")]
    started_at: Time
    duration_ms: float
    ttft_ms: float | None
    overhead_ms: float
    tools: list[ToolCallView]
    tool_uses: list[ToolUseView]
    finish_reasons: list[str]
    response_id: str | None
    trace_id: str | None
    span_id: str | None
    request_bytes: int
    response_bytes: int
    user_agent: str | None
    client_address: str | None
    client_retry: int | None
    params: dict[str, str | int | float | bool | list[str]]
    notes: dict[str, str]


class CallPage(Struct, kw_only=True):
    """Calls, newest first."""

    calls: list[CallView]
    next: Next


class TotalsView(Struct, kw_only=True):
    """Sums over calls. `cost_usd` is that of the calls with a known cost; null where none of them has one."""

    calls: int
    errors: int
    usage: UsageView
    cost_usd: Usd
    unknown_cost_calls: int
    tool_calls: int
    tool_errors: int


class OutcomeView(Struct, kw_only=True):
    """What was reported about a run."""

    id: str
    run_id: str
    outcome: str
    value: float | None
    note: str | None
    at: Time


class RunView(TotalsView, kw_only=True):
    """A run: the calls of one conversation or task, whatever agents took part."""

    id: str
    tenant: str
    agent: Annotated[str | None, Meta(description="Of the first call.")]
    agents: list[str]
    source: str | None
    started_at: Time
    last_at: Time
    duration_ms: float
    steps: Annotated[int, Meta(description="The highest step number.")]
    outcome: OutcomeView | None


class RunPage(Struct, kw_only=True):
    """Runs, the one begun last first."""

    runs: list[RunView]
    next: Next


class CallLeaf(Struct, kw_only=True):
    """A call in the tree of its run; more of it at /api/calls/{id}."""

    id: str
    started_at: Time
    duration_ms: float
    model: str | None
    status: int
    outcome: str
    usage: UsageView
    cost_usd: Usd
    tool_uses: list[ToolUseView]
    upstream: str
    ttft_ms: float | None
    attempts: Annotated[int, Meta(description="Requests that were sent upstream for it.")]
    error: Annotated[str | None, Meta(description="Code of what went wrong.")]
    message: str | None
    cache: Annotated[str | None, Meta(description="As /api/calls has it; null where the cache was not asked.")]
    saved_usd: float
    budget: Annotated[str | None, Meta(description="What budgets and limits decided; null where none was asked.")]
    loop: CallLoopView | None
    notes: Annotated[dict[str, str], Meta(description="Of routes, fallbacks, steps down: as /api/calls has them.")]


class ToolLeaf(ToolCallView, kw_only=True):
    """A tool execution in the tree, under the step whose request brought its result."""

    call_id: str


class StepNode(TotalsView, kw_only=True):
    """The calls of one agent with one step number."""

    step: int
    started_at: Time
    last_at: Time
    call_list: list[CallLeaf]
    tools: list[ToolLeaf]


class AgentNode(TotalsView, kw_only=True):
    """What one agent did in a run, not counting the agents it started."""

    agent: str | None
    agent_version: str | None
    parent_agent: str | None
    started_at: Time
    last_at: Time
    steps: list[StepNode]


class AccountView(Struct, kw_only=True):
    """What is counted together against one limit. Amounts are in `unit`: US dollars, tokens, calls, seconds, ..."""

    account: Annotated[str, Meta(description="Its name: scope, value, unit and window.")]
    scope: str
    value: Annotated[str | None, Meta(description="Null also for calls of which that scope is not known.")]
    within_key: Annotated[str | None, Meta(description="The key that the limit came with, where it counts within it.")]
    unit: str
    rule: Annotated[str, Meta(description="total, rolling, rate (GCRA), slots or age; see gateway.spend.")]
    per: Annotated[str | None, Meta(description="minute, hour, day, week, month or life; rate.")]
    limit: Annotated[float, Meta(description="As the last call met it.")]
    spent: float
    reserved: Annotated[float, Meta(description="By calls under way: their worst cases.")]
    remaining: Annotated[float, Meta(description="limit - spent - reserved, not below 0.")]
    resets_at: Time | None
    label: str | None


class RunBudgetView(Struct, kw_only=True):
    """How a run stands with its own limits. Null: not limited so. Of several budgets in USD the tightest is told."""

    limit_usd: Usd
    spent_usd: Usd
    reserved_usd: Usd
    remaining_usd: Usd
    calls_left: int | None
    steps_left: int | None
    tools_left: int | None
    seconds_left: int | None
    accounts: list[AccountView]


class RunDetail(RunView, kw_only=True):
    """A run with its tree. Totals of agents, and of steps, sum up to those of the run."""

    budget: Annotated[RunBudgetView | None, Meta(description="Null: no limit of its own, or the store is away.")] = None
    prompt_cache: Annotated[RunPromptCacheView | None, Meta(description="Null: no call could have hit one.")] = None
    outcomes: Annotated[list[OutcomeView], Meta(description="Everything reported; the last one counts.")]
    tree: list[AgentNode]
    truncated: Annotated[bool, Meta(description="Not all calls and tools are in the tree; its totals are complete.")]


class OutcomeIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """Report of what a run achieved. A score needs a value."""

    outcome: Literal["success", "failure", "score"]
    value: float | None = None
    note: Annotated[str, Meta(max_length=2000)] = ""


class OutcomeGroup(Struct, kw_only=True):
    """Runs of one tenant and agent with one kind of reported outcome."""

    tenant: str
    agent: str | None
    outcome: str
    runs: int
    calls: int
    cost_usd: Usd
    cost_per_run_usd: Usd
    unknown_cost_calls: int
    mean_value: float | None


class OutcomeCost(Struct, kw_only=True):
    """What outcomes cost. Per success: all that was spent on runs that succeeded or failed, by those that succeeded."""

    tenant: str
    agent: str | None
    runs: int
    successes: int
    failures: int
    success_rate: float | None
    cost_usd: Usd
    cost_per_success_usd: Usd
    cost_per_failure_usd: Usd
    unknown_cost_calls: int


class OutcomePage(Struct, kw_only=True):
    """Cost per outcome, by tenant and agent."""

    outcomes: list[OutcomeGroup]
    agents: list[OutcomeCost]


class WorkersView(Struct, kw_only=True):
    ready: int
    total: int


class Readiness(Struct, kw_only=True):
    """Whether the gateway takes traffic, and how far the recorder is behind it."""

    ready: bool
    draining: bool
    workers: WorkersView
    ledger: Literal["ok", "unavailable"]
    lag_seconds: float


class Health(Struct, kw_only=True):
    status: Literal["ok"] = "ok"


class Index(Struct, kw_only=True):
    """What is here."""

    name: str
    version: str
    routes: list[str]


class Problem(Struct, kw_only=True, omit_defaults=True):
    """An error, as RFC 9457 has it; `code` is stable, `parameter` names the one that is wrong."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    parameter: str | None = None
