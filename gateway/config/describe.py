"""What every field means, in one sentence each: the descriptions of the published JSON Schema."""

from __future__ import annotations

from gateway.config import schema

_FROM_ENV = 'Secret: "$NAME" and "${NAME}" are read from the environment, "$$" is a dollar sign.'

FIELDS: dict[type[schema.Config_], dict[str, str]] = {
    schema.Config: {
        "listen": 'Address of the data port, "host:port"; "[::1]:8787" for IPv6, port 0 lets the system choose.',
        "admin": 'Address of the admin port, "host:port"; off loopback it requires `admin_token`.',
        "admin_token": "Bearer token of the admin port, at least 16 characters. " + _FROM_ENV,
        "tls": "Serve the data port over TLS.",
        "workers": "Processes that carry traffic; they share the data port.",
        "state": "Directory of everything kept on disk; default $XDG_STATE_HOME/tollgate.",
        "upstreams": "Providers by name, beside openai, anthropic and gemini; a same name replaces the built-in.",
        "aliases": "Model names of your own: what clients ask for -> the model that is asked for upstream.",
        "prices": "Prices that outrank the shipped catalogue.",
        "identity": "How the caller of a request is told.",
        "capture": "Message content in the journal and in telemetry: off, hash (SHA-256 only) or full.",
        "capture_bytes": "Bytes of each request and of each answer that `capture: full` keeps.",
        "cost_header": "Answer with `x-tollgate-cost-usd` where the cost is known before the headers are sent.",
        "stream_cost_comment": "End streams with an SSE comment that states their cost; it changes the bytes.",
        "journal": "The record of every call on disk.",
        "telemetry": "Traces, metrics and logs.",
        "limits": "Bounds on what one client may take.",
    },
    schema.Tls: {
        "certificate": "PEM file with the certificate chain.",
        "key": "PEM file with its private key, not encrypted.",
    },
    schema.Upstream: {
        "dialect": "API that this upstream speaks; opaque passes everything through and reads nothing.",
        "url": "Base URL, http or https, without query; requests keep their path below it.",
        "key": "Key sent to the upstream in place of the client's; without it the client's own key passes. "
        + _FROM_ENV,
        "headers": "Headers set on every request to the upstream. Values: " + _FROM_ENV,
        "timeouts": "How long to wait for the upstream.",
        "ca_file": "PEM file of the authorities to trust instead of the system's.",
        "provider": "Provider id of the price catalogue; default: the one known for the URL.",
        "inject_usage": "Ask streams for their usage where the client did not; the extra chunk is removed again.",
        "on_client_gone": "When the client leaves: cancel at once, or drain within bounds to learn the true usage.",
        "drain_seconds": "Longest time of a drain.",
        "drain_usd": "Estimated cost at which a drain ends.",
        "propagate_trace": "Send `traceparent` to the upstream.",
    },
    schema.Timeouts: {
        "connect": "Name resolution, TCP and TLS together, in seconds.",
        "first_byte": "From the request sent to the first byte of the answer, in seconds.",
        "idle": "Between two pieces of an answer, in seconds.",
        "total": "The whole exchange, in seconds.",
    },
    schema.Alias: {
        "model": "The model asked for upstream.",
        "upstream": "The upstream it is asked of; default: the one the request goes to.",
    },
    schema.Price: {
        "input": "USD per million input tokens.",
        "output": "USD per million output tokens.",
        "cache_read": "USD per million input tokens read from a cache.",
        "cache_write": "USD per million input tokens written to a cache.",
        "cache_write_1h": "USD per million input tokens written to a one-hour cache.",
        "reasoning": "USD per million reasoning tokens.",
        "input_audio": "USD per million audio input tokens.",
        "output_audio": "USD per million audio output tokens.",
        "requests": "USD per thousand requests.",
        "web_searches": "USD per thousand web searches.",
    },
    schema.Prices: {
        "models": 'Prices by "model" or "provider/model".',
        "litellm_file": "File in the format of LiteLLM's model_prices JSON.",
    },
    schema.Identity: {
        "tenant": "Tenant of calls that name none.",
        "tenant_header": "Request header that names the tenant; set it only where a trusted proxy does.",
        "run_header": "Further request header that names the run.",
        "agent_header": "Further request header that names the agent.",
        "links": "Entries remembered to join the calls of a run; a restart applies a change.",
        "run_idle_seconds": "A run without calls for so many seconds is over.",
    },
    schema.Journal: {
        "directory": "Where segments are written; default: `journal` in the state directory.",
        "segment_bytes": "Size at which a new segment begins.",
        "retention_bytes": "Total size above which the oldest segments are removed.",
        "retention_days": "Age above which segments are removed.",
        "required": "Refuse calls that cannot be recorded, instead of counting the loss.",
        "fsync": "Wait for the disk with every record: safe against power loss, slower.",
    },
    schema.Otlp: {
        "endpoint": "Base URL of the collector; `/v1/traces` and `/v1/metrics` are appended for HTTP.",
        "protocol": "Transport of OTLP.",
        "headers": "Headers of every export. Values: " + _FROM_ENV,
        "metrics": "Export metrics.",
        "traces": "Export traces.",
    },
    schema.Sampling: {
        "traces_per_second": "Ordinary traces kept per second; errors, slow, expensive and first-seen ones always are.",
        "slow_seconds": "A call that takes longer is kept.",
        "expensive_usd": "A call that costs more is kept.",
    },
    schema.Telemetry: {
        "otlp": "Export over OTLP; default: as OTEL_EXPORTER_OTLP_ENDPOINT and its kin say, null: never.",
        "sampling": "Which traces are kept, decided when a call has ended.",
        "legacy_attributes": "Also write the attribute names that the GenAI conventions have since renamed.",
        "log": 'One JSON line per call: "stdout", a file, or null for none.',
        "label_limit": "Values of one metric label before further ones are counted as __other__.",
    },
    schema.Limits: {
        "body_bytes": "Largest request body.",
        "header_bytes": "Largest request head.",
        "headers": "Most header lines of a request.",
        "header_seconds": "Time for a request head to arrive.",
        "body_seconds": "Time without progress in a request body.",
        "write_seconds": "Time without progress of a client that reads its answer.",
        "keepalive_seconds": "Time an idle client connection is kept.",
        "connections": "Most client connections of one worker.",
        "drain_seconds": "Time for calls in flight to end after SIGTERM.",
        "lame_duck_seconds": "Time to go on accepting after SIGTERM while /readyz says 503, for balancers that poll.",
    },
}
