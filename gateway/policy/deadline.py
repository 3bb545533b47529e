"""Deadline: when the client of a call gives up, as far as it says so. Pure.

The SDKs of OpenAI, Anthropic and Google state the seconds they wait; Envoy the milliseconds it does; a caller that has
a deadline itself may pass it on as a time (`x-request-deadline`, seconds or milliseconds since the epoch).
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.call import Request

SECONDS = (b"x-stainless-timeout", b"x-stainless-read-timeout", b"x-server-timeout")
ENVOY = b"x-envoy-expected-rq-timeout-ms"
ABSOLUTE = b"x-request-deadline"
DIGITS = 20
_ANY = frozenset((*SECONDS, ENVOY, ABSOLUTE))
NS = 10**9
_MILLIS = 10**11  # seconds since the epoch stay below that for three thousand years


def states_one(names: Mapping[bytes, bytes]) -> bool:
    """Is there a header that may say so?"""
    return not _ANY.isdisjoint(names)


def seconds_left(request: Request, now: int) -> float | None:
    """Seconds from the call's arrival until its client gives up, the earliest that it states; None where it states
    nothing. `now`: its arrival, ns since the epoch."""
    names, facts = request.names, request.facts
    if "patience" not in facts:  # for equal heads this is found once
        facts["patience"] = _patience(names)
    patience: float | None = facts["patience"]
    if ABSOLUTE in names and (at := _number(names[ABSOLUTE])) is not None:
        left = (at / 1000 if at >= _MILLIS else at) - now / NS
        return left if patience is None else min(patience, left)
    return patience


def _patience(names: Mapping[bytes, bytes]) -> float | None:
    found = [number for name in SECONDS if name in names and (number := _number(names[name])) is not None]
    if ENVOY in names and (millis := _number(names[ENVOY])) is not None:
        found.append(millis / 1000)
    return min(found) if found else None


def _number(text: bytes) -> float | None:
    text = text.strip()
    return float(text) if len(text) <= DIGITS and text.replace(b".", b"", 1).isdigit() else None
