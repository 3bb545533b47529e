"""What `tollgate check` doubts about goals of service: those that can never be heard of."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.check_limits import Catalogue, provider_of
from gateway.config.problems import Problem
from gateway.config.schema import Config

PAGED = 100 - 100 / 6  # percent; the error budget of a goal below cannot burn six times too fast, as a page needs


def doubts(config: Config, priced: Catalogue) -> Iterator[Problem]:
    names = {provider_of(name, upstream, priced) for name, upstream in config.upstreams.items()}  # as metrics have them
    for at, slo in enumerate(config.slos):
        path = ("slos", str(at))
        if slo.page and slo.objective <= PAGED:
            reason = f"nobody is woken for it: a page needs an objective above {PAGED:.2f}, even where all is bad"
            yield Problem((*path, "objective"), reason=reason, hint="raise it, or set `page: false`")
        provider = slo.match.get("provider")
        if provider is not None and provider not in names:
            reason = f"no upstream is of the provider {provider}: the goal will have no events"
            yield Problem((*path, "match", "provider"), reason=reason, hint=f"there are {', '.join(sorted(names))}")
