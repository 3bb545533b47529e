"""Values as Grafana writes them, in the units that the dashboards use."""

from __future__ import annotations

import math
from collections.abc import Callable

_THOUSANDS = ("", " K", " Mil", " Bil", " Tri")
_BINARY = (" B", " KiB", " MiB", " GiB", " TiB")
_DECIMAL = (" B/s", " kB/s", " MB/s", " GB/s", " TB/s")
_TIMES = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "mins"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def _digits(value: float) -> str:
    """Three significant digits, without zeros at the end."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, base: float, names: tuple[str, ...]) -> str:
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    return _digits(value) + names[step]


def _seconds(value: float) -> str:
    size, name = next((one for one in _TIMES if abs(value) >= one[0]), (1.0, "s"))
    return f"{_digits(value / size)} {name}"


def _dollars(value: float) -> str:
    sign = "-" if value < 0 else ""
    return sign + "$" + _scaled(abs(value), 1000, ("", "K", "M", "B")).strip()


UNITS: dict[str, Callable[[float], str]] = {
    "short": lambda value: _scaled(value, 1000, _THOUSANDS),
    "percentunit": lambda value: f"{_digits(value * 100)}%",
    "currencyUSD": _dollars,
    "s": _seconds,
    "reqps": lambda value: f"{_scaled(value, 1000, ('', 'K', 'M'))} req/s",
    "bytes": lambda value: _scaled(value, 1024, _BINARY),
    "Bps": lambda value: _scaled(value, 1000, _DECIMAL),
}
"""Unit of Grafana -> what a number is written as."""


def written(value: float, unit: str) -> str:
    """Raises KeyError for a unit that is not known here."""
    return UNITS[unit](value) if math.isfinite(value) else str(value)
