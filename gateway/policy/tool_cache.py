"""Outputs of tools that are given again: which call asks the same as another, and which answers are kept. Pure.

Rules
1. The key has all of: who asks (tenant, end user, and whoever shares with them, as policy.cache_key has it), the tool
   with its URL and what the operator sends to it, method and path, the query as written, the session where that counts,
   the headers that are not known to change nothing, and what is asked: JSON by its meaning, everything else byte for
   byte.
2. Kept is what came whole with status 200, was no failure, ended where its framing said, and which nothing in its head
   forbids to keep: `no-store`, a cookie, a `Vary` over what is not part of the key.
3. What an HTTP tool says is to be asked for anew each time (`no-cache`, `max-age=0`) is not kept, and nothing is for
   longer than its `max-age`, unless the operator's word counts more. `private` is no obstacle: nobody shares an output
   but those who are one caller to the tool.
4. A tool of which its server says that it changes something is not cached, whatever the configuration says.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.call import Answer, Call
from gateway.policy.cache_key import IGNORED, Basis, digest, headers_of, meaning, owner
from gateway.policy.forward import HOP_BY_HOP, OURS, listed
from gateway.ports import Exchange, Headers, Outputs, Spec, Wanted

VERSION = b"output-1"
"""To be changed whenever the meaning of a key, or what may be stored under one, changes."""
MOMENTARY = frozenset(
    (
        *(b"content-type", b"content-length", b"content-encoding", b"date", b"age", b"via", b"server", b"set-cookie"),
        *(b"alt-svc", b"strict-transport-security", b"report-to", b"nel", b"server-timing", b"retry-after"),
        *(b"accept-ranges", b"cf-ray", b"cf-cache-status", b"x-request-id", b"traceresponse"),
    )
)
"""Headers of an answer that belong to its moment, its connection or its coding; they are not kept."""
MOMENTARY_PREFIXES = (OURS, b"x-ratelimit-", b"ratelimit")
YES, NO = b"\x01", b"\x00"  # of a hint: may be cached, or not


def key_of_output(call: Call, spec: Spec, basis: Basis, outputs: Outputs, wanted: Wanted) -> bytes | None:
    """SHA-256 of what is asked; None where it has no sure meaning."""
    meant = meaning(wanted.json) if wanted.json else b""
    if meant is None:
        return None
    who, route, request = call.who, call.route, call.request
    dropped = (IGNORED - outputs.counted) | basis.ignored | outputs.left | listed(request.names, request.headers)
    session = b"" if wanted.session is None else b"session " + wanted.session.encode("latin-1")
    return digest(
        (
            VERSION,
            basis.version,
            basis.place,
            who.tenant.encode("utf-8", "surrogatepass"),
            who.end_user.encode("utf-8", "surrogatepass"),
            owner(call, spec),
            route.upstream.encode(),
            request.method,
            route.path,
            session,
            *(part for pair in headers_of(request.headers, dropped) for part in pair),
            b"json" if wanted.json else b"plain",
            meant,
            wanted.plain,
        )
    )


def own_place(spec: Spec, place: bytes) -> bytes:
    """`cache_key.place_of`, and with which key the operator asks: another one may see other things."""
    return digest((place, *[part for header in spec.auth for part in header]))


def hint_key(upstream: str, place: bytes, session: str, name: str) -> bytes:
    """Under which it is remembered what a server said of a tool; session "": what it last said to anybody."""
    parts = (upstream.encode(), place, session.encode("latin-1"), name.encode("utf-8", "surrogatepass"))
    return b"hint:" + digest(parts)


def unkept(call: Call, answer: Answer | None) -> str:
    """In one word why the answer to a call that has ended is not kept, as far as its end tells; "" where it may be."""
    if call.fault is not None or call.status != 200 or not call.attempts or call.attempts[-1].status != 200:
        return "failed"
    if answer is None or not answer.complete or "answer" in call.notes:
        return "incomplete"
    return "failed" if any([not one.ran or one.is_error for one in answer.executed]) else ""


def forbidden(headers: Headers, outputs: Outputs, ignored: frozenset[bytes]) -> str:
    """The same, as far as its head tells."""
    unkeyed = (IGNORED - outputs.counted - {b"accept-encoding"}) | ignored | outputs.left | {b"*"}
    for name, value in headers:
        lower = name.lower()
        if lower == b"set-cookie":
            return "cookie"
        if lower == b"cache-control" and b"no-store" in words(value):
            return "no_store"
        if lower == b"vary" and not unkeyed.isdisjoint(words(value)):
            return "vary"
    return ""


def good_for(headers: Headers) -> int:
    """ns for which the head of an answer says that it is good; -1 where it does not say."""
    most, age = -1, 0
    for name, value in headers:
        lower = name.lower()
        if lower == b"cache-control":
            for word in value.lower().split(b","):
                directive, _, number = word.strip().partition(b"=")
                if directive == b"no-cache":
                    return 0
                if directive == b"max-age":
                    stated = seconds(number.strip(b' "'))  # what cannot be read is no time at all (RFC 9111 4.2.1)
                    most = stated if most < 0 else min(most, stated)
        elif lower == b"age":
            age = seconds(value.strip())
    return most if most < 0 else max(0, most - age) * 10**9


def seconds(text: bytes) -> int:
    return int(text[:9]) if text.isdigit() else 0


def is_framed(exchange: Exchange) -> bool:
    """Can it be told where the body ends? Else a cut connection looks like its end."""
    return exchange.length is not None or b"chunked" in exchange.names.get(b"transfer-encoding", b"").lower()


def words(value: bytes) -> set[bytes]:
    return {word.strip().partition(b"=")[0] for word in value.lower().split(b",")}


def lines_of(headers: Headers) -> bytes:
    """The header lines that are kept with an output."""
    names = {name.lower(): value for name, value in headers}
    dropped = MOMENTARY | HOP_BY_HOP | listed(names, headers)
    return b"".join(_lines(headers, dropped))


def _lines(headers: Headers, dropped: frozenset[bytes]) -> Iterable[bytes]:
    for name, value in headers:
        lower = name.lower()
        if lower not in dropped and not lower.startswith(MOMENTARY_PREFIXES):
            yield b"%b: %b\r\n" % (name, value)
