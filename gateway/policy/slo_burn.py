"""When the error budget of a goal burns: windows and factors of Google's SRE workbook, for 30 days. Pure.

severity  short  long  factor   of the budget in the long window
page      5m     1h    14.4     2 %
page      30m    6h    6        5 %
ticket    2h     1d    3        10 %
ticket    6h     3d    1        10 %
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

DAYS = 30
SHORTEST = "5m"
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


class Burn(Struct, frozen=True):
    """Both windows must be over `factor` times what the budget allows."""

    severity: Literal["page", "ticket"]
    short: str
    long: str
    factor: float


ALERTS = (
    Burn("page", "5m", "1h", 14.4),
    Burn("page", "30m", "6h", 6),
    Burn("ticket", "2h", "1d", 3),
    Burn("ticket", "6h", "3d", 1),
)


def seconds_of(window: str) -> int:
    """`30m` is 1800."""
    return int(window[:-1]) * _UNITS[window[-1]]
