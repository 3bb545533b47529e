"""What a request brings: query parameters, only known ones, each with a fault that names it; and a body of JSON."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from gateway.admin.problems import ApiError, bad_parameter
from gateway.call import Outcome
from gateway.recorder.ledger_read import CallFilter, Cursor, RunFilter
from gateway.spend import NANO_USD

B = TypeVar("B", bound=msgspec.Struct)

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
TEXT_MAX = 512

CALL_FILTERS: Final = ("run", "agent", "tenant", "model", "outcome", "since", "until")
RUN_FILTERS: Final = ("agent", "tenant", "model", "outcome", "since", "until", "search")
PAGE: Final = ("limit", "cursor")
CALL_OUTCOMES: Final = tuple(Outcome)
RUN_OUTCOMES: Final = ("success", "failure", "score", "none")

_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,9})?")
_INT64 = 2**63 - 1


def given(request: web.Request, known: Collection[str]) -> dict[str, str]:
    """The parameters by name. A name that is unknown or comes twice is a fault; an empty value is as good as none."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            raise bad_parameter(name, f"unknown; known are {', '.join(known) or 'none'}")
        if name in values:
            raise bad_parameter(name, "given more than once")
        if len(value) > TEXT_MAX:
            raise bad_parameter(name, f"longer than {TEXT_MAX} characters")
        values[name] = value
    return {name: value for name, value in values.items() if value}


async def body_of(request: web.Request, kind: type[B]) -> B:
    """What was sent, as JSON of this kind, without query parameters. Raises ApiError."""
    given(request, ())
    if request.content_type != "application/json":
        raise ApiError(415, "unsupported_media_type", "send application/json")
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "bad_body", str(error), parameter="body") from None


def nano(usd: float) -> int:
    """Whole nano-USD, never none at all."""
    return max(1, round(usd * NANO_USD))


def call_filter(values: Mapping[str, str]) -> CallFilter:
    choice(values, "outcome", CALL_OUTCOMES)
    texts = {name: values.get(name) for name in ("run", "agent", "tenant", "model", "outcome")}
    return CallFilter(**texts, since=moment(values, "since"), until=moment(values, "until"))


def run_filter(values: Mapping[str, str]) -> RunFilter:
    choice(values, "outcome", RUN_OUTCOMES)
    texts = {name: values.get(name) for name in ("agent", "tenant", "model", "outcome")}
    search = values.get("search", "").strip().lower() or None
    return RunFilter(**texts, since=moment(values, "since"), until=moment(values, "until"), search=search)


def dearest(values: Mapping[str, str]) -> bool:
    """In the order of their cost, of which there is one page alone: costs change while pages are turned."""
    order = choice(values, "order", ("recent", "cost"))
    if order == "cost" and "cursor" in values:
        raise bad_parameter("cursor", "in the order of cost there is one page")
    return order == "cost"


def choice(values: Mapping[str, str], name: str, among: Sequence[str]) -> str:
    """The first where none is given."""
    text = values.get(name, among[0])
    if text not in among:
        raise bad_parameter(name, f"expected one of {', '.join(among)}")
    return text


def limit(values: Mapping[str, str]) -> int:
    text = values.get("limit", str(LIMIT_DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= LIMIT_MAX):
        raise bad_parameter("limit", f"expected a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def moment(values: Mapping[str, str], name: str) -> int | None:
    """RFC 3339 or seconds since the epoch, as ns since the epoch."""
    text = values.get(name)
    if text is None:
        return None
    if _NUMBER.fullmatch(text):
        whole, _, part = text.lstrip("-").partition(".")
        ns = int(whole) * 10**9 + int(part.ljust(9, "0"))
        return _bounded(-ns if text.startswith("-") else ns)
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        at = dt.datetime.fromisoformat(text[:10] + text[10:].replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise bad_parameter(name, "expected RFC 3339 (2026-11-23T08:00:00Z) or seconds since the epoch") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    since = at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return _bounded(((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000)


def _bounded(ns: int) -> int:
    return max(-_INT64, min(ns, _INT64))


def flag(values: Mapping[str, str], name: str) -> bool:
    """False where it is not given."""
    return choice(values, name, ("false", "true")) == "true"


def cursor(values: Mapping[str, str]) -> Cursor | None:
    text = values.get("cursor")
    if text is None:
        return None
    try:
        at, dot, id = base64.b64decode(text, b"-_", validate=True).decode().partition(".")
        if not dot:
            raise ValueError(text)
        return _bounded(int(at)), id
    except (ValueError, binascii.Error):
        raise bad_parameter("cursor", "not one that this API gave out") from None


def next_cursor(at: int, id: str) -> str:
    return base64.urlsafe_b64encode(b"%d.%b" % (at, id.encode())).decode()
