"""Alerts of how the gateway, providers and tools stand."""

from __future__ import annotations

from alerts.parts import Alert, grew, share

# What an agent runs itself may fail in the course of its work, as tests do.
_TOOL = share(
    'tollgate_tool_calls_total{result="error",server!="client"}',
    'tollgate_tool_calls_total{result=~"ok|error",server!="client"}', "15m", 10, 0.25, "server", "tool",
)  # fmt: skip
_OWN_TOOL = share(
    'tollgate_tool_calls_total{result="error",server="client"}',
    'tollgate_tool_calls_total{result=~"ok|error",server="client"}', "15m", 10, 0.75, "server", "tool",
)  # fmt: skip
_DROPS = 'tollgate_telemetry_dropped_total{reason!="rate_limited"}'
_LOST = grew("tollgate_journal_lost_records_total", "10m", above=0)
_ROLLED = 'tollgate_canary_state{state="rolled_back"}'
# By the provider that an upstream is named after, so that only its alerts are held back. Gemini is Google's.
_BREAKERS = "sum by (job, instance, breaker) (tollgate_breaker_open)"
for _upstream, _provider in (("([^/]+)(/.*)?", "$1"), ("gemini(/.*)?", "google")):
    _BREAKERS = f'label_replace({_BREAKERS}, "provider", "{_provider}", "breaker", "{_upstream}")'
# What budgets and limits refuse is no provider's error, and has alerts of its own.
_FAILED = 'tollgate_errors_total{type!~"budget_exceeded|limit_reached|run_stopped"}'
_ERRORS = f"sum by (type, provider) (increase({_FAILED}[10m]))"
_USUAL = f"sum by (type, provider) (increase({_FAILED}[1d] offset 10m)) / 144"

ALERTS = (
    Alert(
        "TollgateWatchdog", "vector(1)", "", "none", "platform", "gateway",
        "Alerts work",
        "Fires always. Whoever does not get it any more knows that Prometheus or Alertmanager are down.",
        "Whether Prometheus evaluates (`/rules`) and Alertmanager sends (`/#/status`).",
        "Send it to a dead man's switch that calls somebody when it stops. Never silence it.",
    ),
    Alert(
        "TollgateDown", 'up{job=~".*tollgate.*"} == 0', "2m", "page", "platform", "gateway",
        "The gateway {{ $labels.instance }} cannot be scraped",
        "Either it is down, and so are the agents behind it, or Prometheus cannot reach its admin port.",
        "`curl http://HOST:8788/healthz`; the log of the supervisor; whether the token of the scrape is right (401).",
        "Start it again. Agents can be pointed at their provider by taking the base URL away; nothing is metered then.",
    ),
    Alert(
        "TollgateAbsent", 'absent(up{job=~".*tollgate.*"})', "5m", "page", "platform", "gateway",
        "Prometheus knows no gateway",
        "No target of a job named tollgate exists: every other alert here is blind.",
        "The scrape configuration, the ServiceMonitor and its labels.",
        "Mend the discovery. Where no gateway shall run any more, take the rules away with it.",
    ),
    Alert(
        "TollgateBreakerOpen", f"{_BREAKERS} > 0", "1m", "ticket", "platform", "models",
        "{{ $labels.breaker }} is left alone by {{ $labels.instance }}",
        "Its breaker is not closed in {{ $value }} workers: the upstream, the model of it (upstream/model) or the tool "
        "failed too often.",
        "`tollgate breakers list` says why, and since when; the status page of the provider. Where one model of an "
        "upstream is named the others of it are asked as ever; where the upstream itself is, it cannot be reached.",
        "Nothing, where fallbacks carry the calls. Else add one (docs/resilience.md). `tollgate breakers close` only "
        "when you know that it works again: probes find that out by themselves.",
    ),
    Alert(
        "TollgateOverloaded", grew('tollgate_rejected_total{reason="overloaded"}', "5m", above=0), "", "page",
        "platform", "gateway",
        "The gateway {{ $labels.instance }} refuses calls because it is full",
        "{{ $value | humanize }} calls within five minutes found no place, in a queue or at a worker.",
        "Calls in flight and event loop lag on the dashboard; which tenant or agent sends so much.",
        "More `workers`, higher limits of concurrency, or a rate limit for who floods it.",
        hold="5m",
    ),
    Alert(
        "TollgateShedding", "tollgate_overload_level >= 2", "2m", "page", "platform", "gateway",
        "A worker of {{ $labels.instance }} refuses calls because it has too much to do",
        "Level {{ $value }}: from 2 on calls are refused for which somebody waits, at 3 all are.",
        "Event loop lag and calls in flight on the dashboard; `tollgate_shed_total` by cause.",
        "More `workers` or machines; mark what can wait as batch (docs/resilience.md).",
    ),
    Alert(
        "TollgateDescriptorsShort",
        "max by (job, instance) (tollgate_descriptors_used_ratio) > 0.85 or "
        + grew('tollgate_rejected_total{reason="no_descriptors"}', "5m", above=0),
        "1m", "page", "platform", "gateway",
        "{{ $labels.instance }} has hardly a file descriptor left",
        "A worker has nearly all that it may have, or had to refuse connections for want of one.",
        "Connections and file descriptors on the dashboard; `prlimit -p` of a worker; who holds so many connections.",
        "Raise the hard limit (`LimitNOFILE=` of the unit, `ulimit -Hn`, that of the container) and start anew, or run "
        "more `workers`: each has its own. A call needs two. Until then who rests makes room (docs/resilience.md).",
    ),
    Alert(
        "TollgatePoolRefuses", grew("tollgate_bulkhead_refused_total", "5m", "pool", "reason", above=0), "", "ticket",
        "platform", "models",
        "The pool {{ $labels.pool }} turns calls away: {{ $labels.reason }}",
        "{{ $value | humanize }} calls within five minutes found no place in time.",
        "Models & upstreams: places, who waits, for how long. Whether the upstream has become slow.",
        "More places or a longer queue for the pool, or a rate limit for who fills it (docs/resilience.md).",
        hold="5m",
    ),
    Alert(
        "TollgatePoolFull",
        "sum by (job, instance, pool) (tollgate_bulkhead_in_flight) / "
        "(sum by (job, instance, pool) (tollgate_bulkhead_limit) > 0) > 0.9",
        "10m", "ticket", "platform", "models",
        "The pool {{ $labels.pool }} is full",
        "{{ $value | humanizePercentage }} of its places have been taken for ten minutes: a burst would queue.",
        "Models & upstreams: calls by model and tenant, duration.",
        "More places where the upstream allows it, else spread the calls over time or upstreams.",
    ),
    Alert(
        "TollgateQueueing",
        "histogram_quantile(0.95, sum by (le, pool) (rate(tollgate_bulkhead_wait_seconds_bucket[5m]))) > 5",
        "5m", "ticket", "platform", "models",
        "Calls wait long for a place in {{ $labels.pool }}",
        "One in twenty of those that wait does so for more than {{ $value | humanizeDuration }}.",
        "Models & upstreams: who waits; whether the upstream has become slow.",
        "More places, a shorter queue so that agents hear of it sooner, or a fallback.",
    ),
    Alert(
        "TollgateProviderRateLimited",
        share('tollgate_upstream_attempts_total{result="rate_limited"}', "tollgate_upstream_attempts_total", "10m", 10,
              0.05, "provider"),
        "5m", "ticket", "platform", "models",
        "{{ $labels.provider }} answers 429",
        "{{ $value | humanizePercentage }} of what was sent to it in ten minutes was over its limits.",
        "Models & upstreams: which model; whether retries or one agent make the traffic.",
        "Spread it: a second key or upstream as fallback, `limits.rates` for who takes most, a higher tier there.",
    ),
    Alert(
        "TollgateErrorSpike",
        f"{_ERRORS} > 10 + 5 * ({_USUAL} or 0 * {_ERRORS})",
        "2m", "ticket", "platform", "models",
        "Many calls of {{ $labels.provider }} fail with {{ $labels.type }}",
        "{{ $value | humanize }} in ten minutes, more than five times what was usual in the day before.",
        "`tollgate journal cat` for a call with this error; what was deployed or reloaded just before.",
        "By the type: `context_length_exceeded` is an agent's, `authentication_error` a key's, `upstream_*` a "
        "provider's matter.",
    ),
    Alert(
        "TollgateFallbacks", share("tollgate_fallbacks_total", "tollgate_requests_total", "15m", 20, 0.1), "5m",
        "ticket", "platform", "models",
        "Many calls go to another upstream than they were meant for",
        "{{ $value | humanizePercentage }} of the calls of 15 minutes fell back: the first choice does not work.",
        "Models & upstreams: from where to where, and why. Open breakers.",
        "Treat it as an outage of the first choice; check what the fallback costs.",
    ),
    Alert(
        "TollgateToolFailing",
        f"{_TOOL} or {_OWN_TOOL}",
        "5m", "ticket", "platform", "tools",
        "The tool {{ $labels.tool }} of {{ $labels.server }} fails",
        "{{ $value | humanizePercentage }} of its calls in 15 minutes ended in an error; agents pay for trying again.",
        "Tools: since when. Its own log; the arguments in a failed call (`tollgate journal cat --run`).",
        "Mend it, or take it from the agents: `deny` of the MCP server, or the tool's section.",
    ),
    Alert(
        "TollgateRecordsLost",
        f"{_LOST} or sum by (job, instance) (tollgate_journal_lost_pending) > 0",
        "", "page", "platform", "gateway",
        "Records of calls are lost at {{ $labels.instance }}",
        "{{ $value | humanize }} records could not be written: spend and audit are no longer complete.",
        "The disk below the state directory: full, read-only, slow. The log names the error.",
        "Make room (`journal.retention_bytes`). With `journal.required` calls are refused instead.",
        hold="5m",
    ),
    Alert(
        "TollgateJournalLag", "tollgate_journal_lag_seconds > 60", "5m", "ticket", "platform", "gateway",
        "Records of {{ $labels.instance }} are read late",
        "The recorder is {{ $value | humanizeDuration }} behind: metrics, traces and ledger show the past.",
        "The CPU of the recorder; a collector or disk that is slow.",
        "Nothing is lost, the journal has it. Less sampling, or a core of its own for the recorder.",
    ),
    Alert(
        "TollgateTelemetryDropped", grew(_DROPS, "15m", "signal", "reason", above=0), "", "ticket", "platform",
        "gateway",
        "Telemetry is dropped: {{ $labels.signal }}, {{ $labels.reason }}",
        "{{ $value | humanize }} in 15 minutes at {{ $labels.instance }}. Journal and ledger are complete.",
        "Whether the collector of `telemetry.otlp` answers, or the target of the log can be written.",
        "Mend that. Lower `telemetry.sampling.traces_per_second` where it cannot take so much.",
    ),
    Alert(
        "TollgateConfigReloadFailed", "tollgate_config_last_reload_success == 0", "1m", "ticket", "platform", "gateway",
        "The configuration of {{ $labels.instance }} could not be loaded again",
        "The old one is in force; what was changed is not.",
        "`tollgate check --config FILE` says what is wrong and where.",
        "Mend the file; it is loaded by itself.",
    ),
    Alert(
        "TollgateBudgetStoreAway", "tollgate_budget_store_available == 0", "1m", "page", "platform", "costs",
        "The store of budgets of {{ $labels.instance }} cannot be used",
        "Limits are kept as `spending` says for that case: calls are refused, or local shares are spent.",
        "Redis, or the disk of the state directory.",
        "Bring the store back. What was spent meanwhile is settled then (docs/redis.md).",
    ),
    Alert(
        "TollgateCacheStoreAway", "tollgate_cache_store_available == 0", "5m", "ticket", "platform", "cache",
        "The cache of {{ $labels.instance }} cannot be used",
        "Every call goes to its provider: nothing breaks, it costs more.",
        "Redis, or the disk of the state directory.",
        "Bring the store back; an empty one is fine.",
    ),
    Alert(
        "TollgateWorkerDied", grew("tollgate_worker_deaths_total", "10m", above=0), "", "ticket", "platform", "gateway",
        "Workers of {{ $labels.instance }} died",
        "{{ $value | humanize }} in ten minutes; the calls they carried were cut, others took their place.",
        "The log around it; the kernel's for an end by memory.",
        "Report it with the log. More memory where that was the cause.",
        hold="5m",
    ),
    Alert(
        "TollgateEventLoopLag", "tollgate_event_loop_lag_seconds > 0.25", "5m", "ticket", "platform", "gateway",
        "A worker of {{ $labels.instance }} is late by {{ $value | humanizeDuration }}",
        "Its event loop has more to do than time: every call waits that long.",
        "The CPU of the workers, steal on shared machines, very large bodies.",
        "More `workers`, at most one per core; fewer calls per machine.",
    ),
    Alert(
        "TollgateLabelOverflow", grew("tollgate_label_overflow_total", "1h", "metric", "label", above=0), "", "info",
        "platform", "gateway",
        "The label {{ $labels.label }} of {{ $labels.metric }} is full",
        "Further values are counted as `__other__`; the ledger still tells them apart.",
        "Which client makes up names of agents, tenants or tools.",
        "Have it use a fixed name, or raise `telemetry.label_limit`.",
    ),
    Alert(
        "TollgateCanaryRolledBack",
        f"({_ROLLED} == 1 unless {_ROLLED} offset 1h == 1) and on (job, instance) tollgate_build_info offset 1h",
        "", "info", "platform", "cache",
        "The canary {{ $labels.canary }} was taken back",
        "It was worse than what it was to replace; no run goes to it any more.",
        "`tollgate canary status`: by which sign, on how many runs.",
        "Find out why before you begin another trial under a new id.",
    ),
)  # fmt: skip
