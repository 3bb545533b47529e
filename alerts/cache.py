"""Alerts of the cache. The gateway acts by itself (a scope falls back to equal questions); these say that it did, or
that it can no longer tell."""

from __future__ import annotations

from alerts.parts import Alert, grew

ALERTS = (
    Alert(
        "TollgateSimilarAnswersWrong",
        "tollgate_cache_false_hit_ratio_lower > on (instance, job, scope) tollgate_cache_false_hit_target",
        "30m", "page", "platform", "cache",
        "More answers to similar questions of {{ $labels.scope }} are wrong than is tolerated, beyond doubt",
        "The lower end of the 95 % interval is {{ $value | humanizePercentage }}.",
        "`tollgate cache show`: which scope, on how many verified answers.",
        "Set the mode of this scope to shadow, or report wrong answers with `tollgate cache feedback wrong`.",
    ),
    Alert(
        "TollgateSimilarAnswersStopped", "tollgate_cache_breaker_open == 1", "5m", "ticket", "platform", "cache",
        "Similar questions of {{ $labels.scope }} are no longer answered from the cache",
        "Too many of the verified answers were wrong, so only equal questions are answered until there is new "
        "evidence.",
        "What changed: the prompts, the model, or what the right answers are?",
        "Nothing: it begins again by itself. Clear what is stale: `tollgate cache clear`.",
    ),
    Alert(
        "TollgateMatcherAway", "tollgate_cache_matcher_up == 0", "5m", "ticket", "platform", "cache",
        "The matcher does not answer; only equal questions are answered from the cache",
        "It is started again by itself, and that did not help for five minutes.",
        "The log for `matcher`.",
        "Mend what the log says; `cache.semantic` off where nobody needs it.",
    ),
    Alert(
        "TollgateEmbedderAway", "tollgate_cache_embedder_up == 0 and on (instance, job) tollgate_cache_matcher_up == 1",
        "15m", "ticket", "platform", "cache",
        "Nothing tells how alike questions are; only equal questions are answered from the cache",
        "The embedder is not there, or its upstream does not answer.",
        "`tollgate cache embedder` says what is missing; an upstream with /embeddings may be down.",
        "Install what is missing, or bring that upstream back.",
    ),
    Alert(
        "TollgateMatcherDied", grew("tollgate_cache_matcher_deaths_total", "30m", above=2), "", "ticket", "platform",
        "cache",
        "The matcher of {{ $labels.instance }} dies again and again",
        "{{ $value | humanize }} times in half an hour.",
        "The log around it; the kernel's for an end by memory.",
        "Fewer `entries`, more memory, or report it with the log.",
    ),
    Alert(
        "TollgateCacheWritesLost", grew("tollgate_cache_writes_lost_total", "30m", above=0), "", "info", "platform",
        "cache",
        "Answers could not be kept at {{ $labels.instance }}",
        "{{ $value | humanize }} in half an hour: they will be paid for again.",
        "Whether the store is slow, full or away.",
        "Bring it back; nothing else is wrong.",
    ),
)  # fmt: skip
