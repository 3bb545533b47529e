"""Dashboards of what carries the calls: Models & upstreams, Tools, Cache & routing, Gateway."""

from __future__ import annotations

from dashboards.money import COUNT, PACE, SHARE, USD
from dashboards.parts import RATE, Board, Panel, Query, grown, or_none, pick, quantiles, rate

_LIMITED = 'result="rate_limited"'
_ESCALATED = 'then="escalated"'
_OK = 'result="ok"'
_KNOWN = 'result=~"ok|error"'
_GIVEN = 'result=~"hit|joined"'
_ASKED = 'result=~"hit|joined|miss"'
_READ = 'type="read"'
_READABLE = 'type="readable"'
_ACTIVE = 'state="active"'

MODELS = Board(
    "models",
    "How models and their upstreams answer, and what is done when they do not.",
    {
        "Latency": (
            Panel("Duration", "From the request head to the last byte; points lead to traces.", "s",
                  quantiles("tollgate_request_duration_seconds"), exemplars=True),
            Panel("Time to first token", "Of streams, from the request head to the first byte of the answer.", "s",
                  quantiles("tollgate_time_to_first_token_seconds"), exemplars=True),
            Panel("Time per token", "Of streams: per output token after the first.", "s",
                  quantiles("tollgate_time_per_output_token_seconds")),
            Panel("P95 by model", "Duration, from head to last byte.", "s", (
                quantiles("tollgate_request_duration_seconds", by="model")[1],
            )),
            Panel("First token, P95 by model", "Of streams.", "s", (
                quantiles("tollgate_time_to_first_token_seconds", by="model")[1],
            )),
            Panel("Calls by model", "Per second, as asked for.", PACE, (
                Query(rate("tollgate_requests_total", by="model"), "{{model}}"),
            ), stacked=True),
        ),
        "Errors": (
            Panel("Errors by type", "Failed calls per second, by provider and type.", PACE, (
                Query(rate("tollgate_errors_total", by="provider, type"), "{{provider}}: {{type}}"),
            ), stacked=True),
            Panel("Attempts by result", "Requests sent upstream per second, by how each ended.", PACE, (
                Query(rate("tollgate_upstream_attempts_total", by="provider, result"), "{{provider}}: {{result}}"),
            ), stacked=True),
            Panel("Rate limited", "Share of attempts that a provider answered with 429.", SHARE, (
                Query(f"({or_none(rate('tollgate_upstream_attempts_total', _LIMITED))}) / "
                      f"{rate('tollgate_upstream_attempts_total')}", "429"),
            ), high=1),
        ),
        "What is done about it": (
            Panel("Breakers not closed", "Of all workers, and in how many each.", COUNT, (
                Query(f"sum ({pick('tollgate_breakers_open')})", "open"),
                Query(or_none(f"sum by (breaker) ({pick('tollgate_breaker_open')})"), "{{breaker}}"),
            ), steps=((1, "red"),)),
            Panel("Breaker changes", "In the time of a point, by breaker and state.", COUNT, (
                Query(grown("tollgate_breaker_changes_total", by="breaker, state", over=RATE),
                      "{{breaker}}: {{state}}"),
            )),
            Panel("Retries", "Per second, by how the attempt before ended.", PACE, (
                Query(rate("tollgate_retries_total", by="reason"), "{{reason}}"),
            ), stacked=True),
            Panel("Retries withheld", "Per second: failures that were not tried again, by why.", PACE, (
                Query(rate("tollgate_retries_withheld_total", by="reason"), "{{reason}}"),
            ), stacked=True),
            Panel("Fallbacks", "Per second, from where to where, by how the attempt before ended.", PACE, (
                Query(rate("tollgate_fallbacks_total", by="upstream, to, reason"),
                      "{{upstream}} to {{to}}: {{reason}}"),
            ), stacked=True),
            Panel("Other models than asked for", "Answers per second.", PACE, (
                Query(rate("tollgate_model_mismatch_total", by="model, used"), "{{model}}: {{used}}"),
            )),
            Panel("Hedges", "Calls per second whose first content was late, or that were the probe of a breaker, by "
                  "what a second attempt came to.", PACE, (
                Query(rate("tollgate_hedges_total", by="to, result"), "{{to}}: {{result}}"),
                Query(rate("tollgate_probes_beside_total", by="to, result"), "probe, {{to}}: {{result}}"),
            ), stacked=True),
        ),
        "Bulkheads and queues": (
            Panel("Places taken", "Share of the places of each pool.", SHARE, (
                Query(f"sum by (pool) ({pick('tollgate_bulkhead_in_flight')}) / "
                      f"(sum by (pool) ({pick('tollgate_bulkhead_limit')}) > 0)", "{{pool}}"),
            ), high=1, steps=((0.9, "orange"),)),
            Panel("Waiting", "Calls that wait for a place.", COUNT, (
                Query(f"sum by (pool) ({pick('tollgate_bulkhead_waiting')})", "{{pool}}"),
            )),
            Panel("Wait", "Of calls that found no place free.", "s", quantiles("tollgate_bulkhead_wait_seconds")),
            Panel("Turned away", "Calls per second that found no place, by pool and reason.", PACE, (
                Query(rate("tollgate_bulkhead_refused_total", by="pool, reason"), "{{pool}}: {{reason}}"),
            ), stacked=True),
        ),
    },
    ("model",),
)  # fmt: skip

TOOLS = Board(
    "tools",
    "Tools of agents: through the gate, or as seen in LLM traffic (server `client`).",
    {
        "Tools": (
            Panel("Calls", "Per second, by server and tool.", PACE, (
                Query(rate("tollgate_tool_calls_total", by="server, tool"), "{{server}}/{{tool}}"),
            ), stacked=True),
            Panel("Success", "Share of calls without an error, of those with a known result.", SHARE, (
                Query(f"{grown('tollgate_tool_calls_total', _OK, by='server, tool')} / "
                      f"({grown('tollgate_tool_calls_total', _KNOWN, by='server, tool')} > 0)",
                      "{{server}}/{{tool}}"),
            ), "bars", 8, high=1),
            Panel("By result", "Per second; `cached` was answered without a call.", PACE, (
                Query(rate("tollgate_tool_calls_total", by="result"), "{{result}}"),
            ), stacked=True),
            Panel("Duration", "Of calls; of those in LLM traffic from the call to its result.", "s",
                  quantiles("tollgate_tool_duration_seconds")),
            Panel("P95 by tool", "Duration of calls.", "s", (
                quantiles("tollgate_tool_duration_seconds", by="server, tool")[1],
            )),
            Panel("Cost", "US dollars per hour of tools whose price is known.", USD, (
                Query(f"3600 * {rate('tollgate_tool_cost_usd_total', by='server, tool')}", "{{server}}/{{tool}}"),
            ), stacked=True),
        ),
    },
    (),
)  # fmt: skip

_LOOKUPS = "tollgate_cache_lookups_total"
_VERIFIED = "tollgate_cache_verified_total"
CACHE = Board(
    "cache",
    "Answers given again, how right they are, what they save; where calls are sent, and targets on trial.",
    {
        "Answers given again": (
            Panel("Hit rate", "Share of lookups that were answered, by tier; `bypass` does not count.", SHARE, (
                Query(f"{rate(_LOOKUPS, _GIVEN, by='tier')} / "
                      f"({rate(_LOOKUPS, _ASKED, by='tier')} > 0)", "{{tier}}"),
            ), high=1),
            Panel("Lookups", "Per second, by tier and result.", PACE, (
                Query(rate(_LOOKUPS, by="tier, result"), "{{tier}}: {{result}}"),
            ), stacked=True),
            Panel("Saved", "US dollars per hour, by what spared them.", USD, (
                Query(f"3600 * {rate('tollgate_cost_saved_usd_total', by='reason')}", "{{reason}}"),
            ), stacked=True),
            Panel("Stored", "Answers that are still good, and questions that the matcher remembers.", COUNT, (
                Query(f"max ({pick('tollgate_cache_entries')})", "answers"),
                Query(f"max ({pick('tollgate_cache_questions')})", "questions"),
            )),
            Panel("Size", "Bytes of stored answers.", "bytes", (
                Query(f"max ({pick('tollgate_cache_bytes')})", "bytes"),
            )),
            Panel("Store", "1: every worker can use it. Below: answers that could not be written.", COUNT, (
                Query(f"min ({pick('tollgate_cache_store_available')})", "available"),
                Query(grown("tollgate_cache_writes_lost_total", over=RATE), "writes lost"),
            )),
        ),
        "Similar questions": (
            Panel("Wrong hits, measured", "Share of wrong answers among those to similar questions, from verified "
                  "ones, with the ends of its interval of 95 % and what is tolerated.", SHARE, (
                Query(f"max by (scope) ({pick('tollgate_cache_false_hit_ratio')})", "{{scope}}"),
                Query(f"max by (scope) ({pick('tollgate_cache_false_hit_ratio_lower')})", "{{scope}} at least"),
                Query(f"max by (scope) ({pick('tollgate_cache_false_hit_ratio_upper')})", "{{scope}} at most"),
                Query(f"max by (scope) ({pick('tollgate_cache_false_hit_target')})", "{{scope}} tolerated"),
            ), high=1),
            Panel("Verified", "Answers held against fresh ones, per hour; and what people and the judge said.", COUNT, (
                Query(f"3600 * {rate(_VERIFIED, by='verdict')}", "{{verdict}}"),
                Query(f"3600 * {rate('tollgate_cache_feedback_total', by='verdict')}", "people: {{verdict}}"),
                Query(f"3600 * {rate('tollgate_cache_judged_total', by='verdict')}", "judge: {{verdict}}"),
            )),
            Panel("Why not", "Calls per second without an equal answer: given a similar one's, or why not.", PACE, (
                Query(rate("tollgate_cache_similar_total", by="reason"), "{{reason}}"),
            ), stacked=True),
            Panel("Lookup", "What calls waited for the matcher.", "s", quantiles("tollgate_cache_lookup_seconds")),
            Panel("Cut and breaker", "Chance of being right from which on answers are given (2: none are), and scopes "
                  "that fell back to equal questions.", COUNT, (
                Query(f"max by (scope) ({pick('tollgate_cache_cut')})", "{{scope}} cut"),
                Query(f"max by (scope) ({pick('tollgate_cache_breaker_open')})", "{{scope}} fallen back"),
                Query(or_none(grown("tollgate_cache_breaker_trips_total", over=RATE)), "trips"),
            )),
            Panel("Matcher", "1: the matcher answers, and can tell how alike questions are; texts embedded per second; "
                  "deaths.", COUNT, (
                Query(f"min ({pick('tollgate_cache_matcher_up')})", "matcher"),
                Query(f"min ({pick('tollgate_cache_embedder_up')})", "embedder"),
                Query(or_none(rate("tollgate_cache_embedded_total")), "embedded per second"),
                Query(grown("tollgate_cache_matcher_deaths_total", over=RATE), "deaths"),
            )),
        ),
        "Prompt caches of providers": (
            Panel("Read share", "Of the tokens that could have been read from the provider's cache.", SHARE, (
                Query(f"{rate('tollgate_prompt_cache_tokens_total', _READ, by='agent')} / "
                      f"({rate('tollgate_prompt_cache_tokens_total', _READABLE, by='agent')} > 0)",
                      "{{agent}}"),
            ), high=1),
            Panel("Lost", "US dollars per hour that a stable prefix would have saved, by cause.", USD, (
                Query(f"3600 * {rate('tollgate_prompt_cache_lost_usd_total', by='cause')}", "{{cause}}"),
            ), stacked=True),
            Panel("What changes", "Tokens lost per second by cause, and calls per second by what changed.", COUNT, (
                Query(rate("tollgate_prompt_cache_lost_tokens_total", by="cause"), "{{cause}} (tokens)"),
                Query(rate("tollgate_prompt_cache_churn_total", by="part"), "{{part}} (calls)"),
            )),
        ),
        "Routing": (
            Panel("Route mix", "Share of calls with tokens, by the provider that answered.", SHARE, (
                Query(f"{rate('tollgate_usage_source_total', by='provider')} / "
                      f"on () group_left () {rate('tollgate_usage_source_total')}", "{{provider}}"),
            ), stacked=True, high=1),
            Panel("Tokens by model", "Per second, input and output, by the model that answered.", COUNT, (
                Query(rate("tollgate_tokens_total", 'type=~"input|output"', by="model"), "{{model}}"),
            ), stacked=True),
            Panel("By rule", "Calls per second that rules sent somewhere, by rule, target and why.", PACE, (
                Query(rate("tollgate_routed_calls_total", by="rule, target, why"), "{{rule}}: {{target}} ({{why}})"),
            ), stacked=True),
            Panel("Cascades", "Answers per second that were checked, by rule, target and what was found; and the share "
                  "of them that another target was asked for.", PACE, (
                Query(rate("tollgate_cascade_answers_total", by="rule, target, verdict"),
                      "{{rule}}: {{target}} ({{verdict}})"),
                Query(f"({or_none(rate('tollgate_cascade_answers_total', _ESCALATED))}) / "
                      f"{rate('tollgate_cascade_answers_total')}", "escalated"),
            )),
            Panel("Learned from", "Weight of the labels by scope and target; and 1 where they are enough.", COUNT, (
                Query(f"max by (scope, target) ({pick('tollgate_learned_labels')})", "{{scope}}: {{target}}"),
                Query(f"max by (scope) ({pick('tollgate_learned_ready')})", "{{scope}} ready"),
            )),
            Panel("Expected of learned choices", "Quality and cost, as shares of the best single target's.", SHARE, (
                Query(f"max by (scope) ({pick('tollgate_learned_quality_ratio')})", "{{scope}} quality"),
                Query(f"max by (scope) ({pick('tollgate_learned_cost_ratio')})", "{{scope}} cost"),
            )),
            Panel("Canaries", "1 for the state that each is in.", COUNT, (
                Query(f"max by (canary, state) ({pick('tollgate_canary_state')})", "{{canary}} {{state}}"),
            )),
            Panel("Evidence against canaries", "That it is worse; at 1 / alpha (100) it is taken back.", COUNT, (
                Query(f"max by (canary) ({pick('tollgate_canary_evidence')})", "{{canary}}"),
            )),
            Panel("Runs of canaries", "That each was judged by: its own, and the rest.", COUNT, (
                Query(f"max by (canary, arm) ({pick('tollgate_canary_runs')})", "{{canary}}: {{arm}}"),
            )),
        ),
    },
)  # fmt: skip

GATEWAY = Board(
    "gateway",
    "The gateway itself: what it adds to a call, whether it keeps up, what it loses.",
    {
        "Now": (
            Panel("Up", "Gateways that can be scraped.", COUNT, (
                Query('sum (up{job=~"$job", instance=~"$instance"})'),
            ), "stat", 4),
            Panel("Version", "Gateways by version.", COUNT, (
                Query(f"count by (version) ({pick('tollgate_build_info')})", "{{version}}"),
            ), "stat", 4),
            Panel("Configuration", "1: the last reload succeeded.", COUNT, (
                Query(f"min ({pick('tollgate_config_last_reload_success')})"),
            ), "stat", 4),
            Panel("Loaded", "Since the configuration was last loaded.", "s", (
                Query(f"time() - max ({pick('tollgate_config_last_reload_success_timestamp_seconds')})"),
            ), "stat", 4),
            Panel("Budget store", "1: every worker can use it.", COUNT, (
                Query(f"min ({pick('tollgate_budget_store_available')})"),
            ), "stat", 4),
            Panel("Keys", "Virtual keys that are active.", COUNT, (
                Query(f"sum ({pick('tollgate_keys', _ACTIVE)})"),
            ), "stat", 4),
        ),
        "Overhead": (
            Panel("Overhead", "Time that the gateway adds to a call; points lead to traces.", "s",
                  quantiles("tollgate_overhead_seconds"), exemplars=True),
            Panel("Event loop lag", "Largest recent delay of a worker.", "s", (
                Query(f"max by (instance) ({pick('tollgate_event_loop_lag_seconds')})", "{{instance}}"),
            )),
            Panel("In flight", "Calls in progress.", COUNT, (
                Query(f"sum by (instance) ({pick('tollgate_inflight_requests')})", "{{instance}}"),
            )),
            Panel("Overload", "Level of the worst worker: 1 refuses batch calls, 2 interactive ones too, 3 all; "
                  "and calls refused per second.", COUNT, (
                Query(f"max ({pick('tollgate_overload_level')})", "level"),
                Query(or_none(rate("tollgate_shed_total", by="cause, priority")), "{{cause}}: {{priority}}"),
            )),
            Panel("Bytes", "Of bodies per second.", "Bps", (
                Query(rate("tollgate_request_bytes_total"), "received"),
                Query(rate("tollgate_response_bytes_total"), "sent"),
            )),
            Panel("Memory given back", "Bytes that caches let go of for workers short of memory, in the time of a "
                  "point.", "bytes", (
                Query(or_none(grown("tollgate_cache_memory_dropped_bytes_total", by="cache", over=RATE)), "{{cache}}"),
            )),
            Panel("File descriptors", "Of the worker that has most of what it may have; and refusals for want of one, "
                  "per second.", "percentunit", (
                Query(f"max by (instance) ({pick('tollgate_descriptors_used_ratio')})", "{{instance}}"),
                Query(or_none(rate("tollgate_rejected_total", 'reason="no_descriptors"')), "refused"),
            )),
            Panel("Worker deaths", "In the time of a point.", COUNT, (
                Query(grown("tollgate_worker_deaths_total", over=RATE), "deaths"),
            )),
        ),
        "Records and telemetry": (
            Panel("Journal lag", "Age of the oldest record that the recorder has not read.", "s", (
                Query(f"max by (instance) ({pick('tollgate_journal_lag_seconds')})", "{{instance}}"),
            )),
            Panel("Journal unread", "Bytes that the recorder has not read.", "bytes", (
                Query(f"sum by (instance) ({pick('tollgate_journal_lag_bytes')})", "{{instance}}"),
            )),
            Panel("Records lost", "That could not be written, and those that wait to be noted.", COUNT, (
                Query(grown("tollgate_journal_lost_records_total", over=RATE), "lost"),
                Query(f"sum ({pick('tollgate_journal_lost_pending')})", "pending"),
            )),
            Panel("Telemetry dropped", "Spans, log lines and metric points per second.", COUNT, (
                Query(or_none(rate("tollgate_telemetry_dropped_total", by="signal, reason")),
                      "{{signal}}: {{reason}}"),
            ), stacked=True),
            Panel("Full labels", "Observations per second whose label value was replaced.", COUNT, (
                Query(or_none(rate("tollgate_label_overflow_total", by="metric, label")), "{{metric}}: {{label}}"),
            )),
            Panel("Series", "That this gateway exposes: what a scrape costs.", COUNT, (
                Query('sum by (instance) (scrape_samples_scraped{job=~"$job", instance=~"$instance"})', "{{instance}}"),
            )),
        ),
    },
    (),
)  # fmt: skip
