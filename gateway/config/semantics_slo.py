"""What goals of service must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config
from gateway.config.schema_slo import Slo
from gateway.config.slis import SLIS

VALUE_CHARS = 128


def faults(config: Config) -> Iterator[Problem]:
    """Every rule that the goals break."""
    seen: set[str] = set()
    for index, slo in enumerate(config.slos):
        path = ("slos", str(index))
        if slo.name in seen:
            yield Problem((*path, "name"), reason="another goal has this name")
        seen.add(slo.name)
        yield from _seconds((*path, "seconds"), slo)
        yield from _match((*path, "match"), slo)


def _seconds(path: Path, slo: Slo) -> Iterator[Problem]:
    bounds = SLIS[slo.sli].seconds
    if not bounds and slo.seconds is not None:
        yield Problem(path, reason=f"{slo.sli} is not about time")
    elif bounds and slo.seconds not in bounds:
        listed = ", ".join(f"{bound:g}" for bound in bounds)
        got = "nothing" if slo.seconds is None else f"{slo.seconds:g}"
        yield Problem(path, expected=f"one of the bounds that {slo.sli} is counted by: {listed}", got=got)


def _match(path: Path, slo: Slo) -> Iterator[Problem]:
    labels = SLIS[slo.sli].labels
    for label, value in slo.match.items():
        if label not in labels:
            known = f"it has {', '.join(labels)}" if labels else "it has none"
            hint = did_you_mean(label, labels) or known
            yield Problem((*path, label), reason=f"{slo.sli} has no such label", hint=hint)
        elif not value or len(value) > VALUE_CHARS or not value.isprintable():
            yield Problem((*path, label), reason=f"must be 1 to {VALUE_CHARS} printable characters")
