"""What goals can be about: which labels of a metric they may select by, which bounds of time it counts.

A test holds this against the table of names, which the configuration must not import.
"""

from __future__ import annotations

from msgspec import Struct


class Sli(Struct, frozen=True):
    """`labels` may stand in `match`; `seconds` are the bounds of which one must be named, () where none may be."""

    labels: tuple[str, ...]
    seconds: tuple[float, ...] = ()


SLIS: dict[str, Sli] = {
    "availability": Sli(("route", "provider", "model")),
    "overhead": Sli((), (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)),
    "first_token": Sli(
        ("provider", "model"), (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
    ),
    "duration": Sli(
        ("route", "provider", "model", "stream"),
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800),
    ),
    "tools": Sli(("server", "tool")),
    "cache": Sli(("scope",)),
    "telemetry": Sli(()),
}
