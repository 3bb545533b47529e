"""Every span attribute of Tollgate, once; see gateway.recorder.names for the rules."""

from __future__ import annotations


class Span:
    """Span attributes; those of the conventions under their newest names."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    SYSTEM = "gen_ai.system"  # legacy
    REQUEST_MODEL = "gen_ai.request.model"
    REQUEST_STREAM = "gen_ai.request.stream"
    REQUEST_PARAM = "gen_ai.request."  # + name of the parameter
    RESPONSE_MODEL = "gen_ai.response.model"
    RESPONSE_ID = "gen_ai.response.id"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
    CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
    CACHE_CREATION_TOKENS = "gen_ai.usage.cache_creation.input_tokens"  # legacy
    INPUT_MESSAGES = "gen_ai.input.messages"
    SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
    TOOL_DEFINITIONS = "gen_ai.tool.definitions"
    OUTPUT_MESSAGES = "gen_ai.output.messages"
    CONVERSATION = "gen_ai.conversation.id"
    AGENT_NAME = "gen_ai.agent.name"
    AGENT_VERSION = "gen_ai.agent.version"
    TOOL_NAME = "gen_ai.tool.name"
    TOOL_CALL_ID = "gen_ai.tool.call.id"
    TOOL_TYPE = "gen_ai.tool.type"
    ERROR_TYPE = "error.type"
    METHOD = "http.request.method"
    ROUTE = "http.route"
    STATUS_CODE = "http.response.status_code"
    RESEND_COUNT = "http.request.resend_count"
    REQUEST_SIZE = "http.request.body.size"
    RESPONSE_SIZE = "http.response.body.size"
    CLIENT_ADDRESS = "client.address"
    USER_AGENT = "user_agent.original"
    SERVER_ADDRESS = "server.address"
    SERVER_PORT = "server.port"
    REQUEST_ID = "tollgate.request.id"
    OUTCOME = "tollgate.outcome"
    TENANT = "tollgate.tenant"
    UPSTREAM = "tollgate.upstream"
    RUN = "tollgate.conversation.id"
    RUN_SOURCE = "tollgate.conversation.source"
    RUN_CONFIDENCE = "tollgate.conversation.confidence"
    AGENT_SOURCE = "tollgate.agent.source"
    PARENT_AGENT = "tollgate.agent.parent"
    STEP = "tollgate.step"
    REQUEST_CLASS = "tollgate.request.class"
    KEY = "tollgate.key.id"
    DEPTH = "tollgate.agent.depth"
    BUDGET = "tollgate.budget.decision"
    BUDGET_ACCOUNT = "tollgate.budget.account"
    BUDGET_RESERVED = "tollgate.budget.reserved_usd"
    BUDGET_REMAINING = "tollgate.budget.remaining_usd"
    CACHE = "tollgate.cache.result"
    CACHE_AGE = "tollgate.cache.age"
    SAVED = "tollgate.cache.saved_usd"
    LOOP = "tollgate.loop.signals"
    LOOP_ACTION = "tollgate.loop.action"
    CACHE_LOST = "tollgate.prompt_cache.lost_usd"
    CACHE_HINT = "tollgate.prompt_cache.hint"
    COST = "tollgate.cost.usd"
    COST_PART = "tollgate.cost."  # + component + ".usd"
    COST_STATUS = "tollgate.cost.status"
    PRICE_VERSION = "tollgate.price.version"
    USAGE_SOURCE = "tollgate.usage.source"
    OVERHEAD = "tollgate.overhead"
    ATTEMPTS = "tollgate.attempts"
    ATTEMPT_MODEL = "tollgate.attempt.model"  # as gen_ai.request.model back ends would take it for another operation
    REUSED = "tollgate.connection.reused"
    CASCADE = "tollgate.cascade"
    RETRY_WITHHELD = "tollgate.retry.withheld"
    BULKHEAD = "tollgate.bulkhead.pool"
    BULKHEAD_WAITED = "tollgate.bulkhead.waited"
    CLIENT_RETRY = "tollgate.client.retry_count"
    TOOL_EXACT = "tollgate.tool.duration_exact"
    TOOL_SERVER = "tollgate.tool.server"
    CONTENT_IN = "tollgate.content.input"
    CONTENT_OUT = "tollgate.content.output"
    SAMPLING_REASON = "tollgate.sampling.reason"
    SAMPLING_PROBABILITY = "tollgate.sampling.probability"
    RUN_OUTCOME = "tollgate.run.outcome"
    RUN_CALLS = "tollgate.run.calls"
    RUN_COST = "tollgate.run.cost_usd"
    KIND = "openinference.span.kind"  # from here on: telemetry.conventions
    SESSION = "session.id"
    LLM_MODEL = "llm.model_name"
    EMBEDDING_MODEL = "embedding.model_name"
    LLM_PROMPT = "llm.token_count.prompt"
    LLM_COMPLETION = "llm.token_count.completion"
    LLM_TOTAL = "llm.token_count.total"
    LLM_CACHE_READ = "llm.token_count.prompt_details.cache_read"
    LLM_CACHE_WRITE = "llm.token_count.prompt_details.cache_write"
    LLM_REASONING = "llm.token_count.completion_details.reasoning"
    LLM_PROMPT_COST = "llm.cost.prompt"
    LLM_COMPLETION_COST = "llm.cost.completion"
    LLM_COST = "llm.cost.total"
    OI_TOOL_NAME = "tool.name"
    MLFLOW_TYPE = "mlflow.spanType"
    MLFLOW_COST = "mlflow.llm.cost"


SPAN_HELP: dict[str, str] = {
    Span.REQUEST_ID: "id of the call, as in x-tollgate-request-id and the API",
    Span.OUTCOME: "how the call ended (gateway.call.Outcome)",
    Span.TENANT: "who pays",
    Span.UPSTREAM: "configured name of the upstream",
    Span.RUN: "run that the call belongs to, also where it was derived",
    Span.RUN_SOURCE: "what the run id was taken from",
    Span.RUN_CONFIDENCE: "0 to 1",
    Span.AGENT_SOURCE: "what the agent name was taken from",
    Span.PARENT_AGENT: "agent that started this one",
    Span.STEP: "number of the call in its run",
    Span.REQUEST_CLASS: "what kind of request the client says it is",
    Span.KEY: "id of the virtual key it came with",
    Span.DEPTH: "levels of agents above the one that made the call",
    Span.BUDGET: "granted, queued, clamped, tapered, refused or stopped; absent where no limit was asked",
    Span.BUDGET_ACCOUNT: "the account of a budget or limit that made it so",
    Span.BUDGET_RESERVED: "US dollars held while the call was under way",
    Span.BUDGET_REMAINING: "US dollars that the tightest budget had left beside what was held",
    Span.CACHE: "exact, joined (the answer of an equal call under way), miss or bypass; absent where it was not asked",
    Span.CACHE_AGE: "seconds since the answer was stored",
    Span.SAVED: "US dollars that the answer cost when it was paid for",
    Span.LOOP: "signs of a runaway agent, comma-separated",
    Span.LOOP_ACTION: "what they led to: note, warn, downshift or stop",
    Span.CACHE_LOST: "US dollars that a stable prefix would have saved; absent where nothing or unknown",
    Span.CACHE_HINT: "why the provider did not read from its cache what it could have",
    Span.COST: "US dollars; absent where unknown",
    Span.COST_PART: "prefix: US dollars of one component, `tollgate.cost.<component>.usd`",
    Span.COST_STATUS: "priced, no_price, no_usage or free",
    Span.PRICE_VERSION: "version of the price data",
    Span.USAGE_SOURCE: "provider, injected, estimated, cached or none",
    Span.OVERHEAD: "seconds spent in the gateway itself",
    Span.ATTEMPTS: "requests sent upstream for this call",
    Span.ATTEMPT_MODEL: "model that an attempt asked for which was not the last",
    Span.REUSED: "whether the attempt used a kept-alive connection",
    Span.CASCADE: "what a cascade found of the answers to the call, in order: ok, json, schema, ...",
    Span.RETRY_WITHHELD: "why a failure was not tried again where it was: sdk, attempts, wait, deadline or budget",
    Span.BULKHEAD: "the pool of calls in which this one found no place free",
    Span.BULKHEAD_WAITED: "what it waited for one, in seconds",
    Span.CLIENT_RETRY: "how often the client's SDK says it sent this call again",
    Span.TOOL_SERVER: "the configured tool or MCP server that an execution passed through the gate to",
    Span.TOOL_EXACT: "whether the duration was reported; otherwise it is an upper bound",
    Span.CONTENT_IN: "captured request body: its digest, or its text where it does not parse",
    Span.CONTENT_OUT: "captured answer body: its digest, or its text where it does not parse",
    Span.SAMPLING_REASON: "why the trace was kept",
    Span.SAMPLING_PROBABILITY: "probability with which it was kept; 1/p re-weights counts",
    Span.RUN_OUTCOME: "success, failure or score, where reported",
    Span.RUN_CALLS: "calls seen under this span since its trace was kept",
    Span.RUN_COST: "US dollars of these calls",
}
"""What our own span attributes mean."""

CONVENTIONS_HELP: dict[str, tuple[str, str]] = {
    Span.KIND: ("openinference", "AGENT, LLM, EMBEDDING or TOOL; CHAIN of a call and its attempts"),
    Span.SESSION: ("openinference", "the run as the client stated it, as in `gen_ai.conversation.id`"),
    Span.LLM_MODEL: ("openinference", "the model that answered, else the one asked for"),
    Span.EMBEDDING_MODEL: ("openinference", "the same of embeddings"),
    Span.LLM_PROMPT: ("openinference", "input tokens, cache reads and writes included"),
    Span.LLM_COMPLETION: ("openinference", "output tokens, reasoning included"),
    Span.LLM_TOTAL: ("openinference", "both"),
    Span.LLM_CACHE_READ: ("openinference", "input tokens read from the provider's cache"),
    Span.LLM_CACHE_WRITE: ("openinference", "input tokens written to it"),
    Span.LLM_REASONING: ("openinference", "output tokens spent on reasoning"),
    Span.LLM_PROMPT_COST: ("openinference", "US dollars of the input"),
    Span.LLM_COMPLETION_COST: ("openinference", "US dollars of the output"),
    Span.LLM_COST: ("openinference", "US dollars of the operation, all attempts included"),
    Span.OI_TOOL_NAME: ("openinference", "the tool that ran"),
    Span.MLFLOW_TYPE: ("mlflow", "as `openinference.span.kind`, but CHAT_MODEL of chats"),
    Span.MLFLOW_COST: ("mlflow", "JSON of `input_cost`, `output_cost` and `total_cost` in US dollars; of tools, too"),
}
"""Attribute -> (convention that it belongs to, what it means)."""
