"""The key of a question: two requests have the same key if and only if one's answer is an answer to the other. Pure.

Rules
1. Everything counts that is not known to change no answer: every field of the body, known or not; the path and its
   query; every header that is sent on, but those of IGNORED. Whoever adds a field or a header gets another key.
2. What is equal in meaning is equal in key: white space, the order of the members of an object and the way a string is
   escaped do not count. Numbers count as written: 1.0 is not 1, and no digit is lost.
3. The upstream is its name, its URL and the headers the operator adds: where one of them changes, so does the key.
4. Nobody shares with anybody else by accident: the tenant, the end user, and the owner (the team of a virtual key, else
   the key itself, else the credential that the client brought for the upstream) are part of the key.
5. `stream`, and of `stream_options` the wish for usage, say how an answer is sent and not what it says: they are left
   out, and stand in the *shape* instead. So a stored answer serves both ways where the dialect can turn one into the
   other.
6. All of SHA-256 is kept; each part is preceded by its length, so that no two lists of parts read alike.
7. A body in which a member is repeated, at any depth, has no key: parsers disagree on what it means.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Call
from gateway.policy.forward import CREDENTIALS, HOP_BY_HOP, OURS, listed, without_key
from gateway.ports import Headers, Spec

VERSION = b"tollgate exact 2"
"""Changed whenever the meaning of a key, or what may be stored under one, changes."""

IGNORED = frozenset(
    (
        *(b"host", b"content-length", b"content-type", b"content-encoding", b"expect", b"date", b"via"),
        *(b"user-agent", b"accept", b"accept-encoding", b"origin", b"referer", b"priority"),
        *(b"cache-control", b"pragma", b"if-none-match", b"if-modified-since"),
        *(b"traceparent", b"tracestate", b"baggage", b"b3", b"sentry-trace", b"x-amzn-trace-id"),
        *(b"x-request-id", b"x-correlation-id", b"x-client-request-id", b"idempotency-key"),
        *(b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto"),
        *(b"x-real-ip", b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-dest"),
    )
)
"""Headers that change no answer; the path of the body's encoding is left behind when it is read."""
PREFIXES = (OURS, b"x-stainless-", b"x-b3-", b"x-datadog-")
_STREAM = ("stream", "stream_options")

_decode = msgspec.json.Decoder(float_hook=lambda text: Raw(text.encode())).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder(order="sorted").encode
FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


class Meanings:
    """Bodies of each tenant that came lately, with the digests of what they mean: one that comes again, byte for byte,
    is not read again. They are compared whole, so that no two are taken for each other."""

    LEAST, MOST = 1024, 1_048_576  # bytes of a body; a smaller one is read as fast

    def __init__(self, room: int) -> None:
        self.room = room  # bytes of all of them
        self.held = 0
        self._known: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def of(self, tenant: str, body: bytes) -> bytes | None:
        if not self.LEAST <= len(body) <= self.MOST:
            return meant_by(body)
        asked = (tenant, body)
        found = self._known.get(asked)
        if found is not None:
            self._known.move_to_end(asked)
            return found
        meant = meant_by(body)
        if meant is not None:
            self._known[asked] = meant
            self.held += len(body)
            while self.held > self.room:
                (_, oldest), _ = self._known.popitem(last=False)
                self.held -= len(oldest)
        return meant


class Basis(Struct, frozen=True):
    """What the keys of one configuration and upstream have in common."""

    version: bytes
    place: bytes  # see `place_of`
    ignored: frozenset[bytes] = frozenset()  # further headers that change no answer, in lower case
    meanings: Meanings | None = None


def place_of(spec: Spec) -> bytes:
    """Where the upstream is and what the operator sends to it; only a digest, for headers may be secret."""
    target = spec.target
    origin = f"{target.tls}|{target.host}|{target.port}".encode()
    return digest((origin, target.base_path, *[part for header in sorted(spec.headers) for part in header]))


def key_of(call: Call, spec: Spec, body: bytes, basis: Basis) -> bytes | None:
    """SHA-256 of the question; `body` is what would be sent, decoded. None where the body has no sure meaning."""
    meanings = basis.meanings
    meant = meant_by(body) if meanings is None else meanings.of(call.who.tenant, body)
    return None if meant is None else digest(parts_of(VERSION, call, spec, meant, basis))


def parts_of(version: bytes, call: Call, spec: Spec, meant: bytes, basis: Basis) -> tuple[bytes, ...]:
    """All that a key is made of; `meant` is what the body means."""
    who, route = call.who, call.route
    return (
        version,
        basis.version,
        basis.place,
        who.tenant.encode("utf-8", "surrogatepass"),
        who.end_user.encode("utf-8", "surrogatepass"),
        owner(call, spec),
        route.upstream.encode(),
        spec.family.encode(),
        (call.model_sent or call.asked.model).encode("utf-8", "surrogatepass"),
        route.template.encode(),
        route.dialect.encode(),
        call.request.method,
        without_key(route.path) if b"key=" in route.path else route.path,
        telling(call, basis.ignored),
        meant,
    )


def digest(parts: Iterable[bytes]) -> bytes:
    pieces: list[bytes] = []
    for part in parts:
        pieces += (b"%d:" % len(part), part)
    return hashlib.sha256(b"".join(pieces)).digest()


def owner(call: Call, spec: Spec) -> bytes:
    """Who shares answers with whom, within a tenant."""
    key = call.key
    if key is not None:
        return b"team %b" % key.team.encode() if key.team else b"key %b" % key.id.encode()
    if spec.auth:
        return b"all"
    return b"client " + credentials(call)


def credentials(call: Call) -> bytes:
    """Of what the client itself presents to the upstream; only its digest ever leaves this function."""
    request = call.request
    found = [b"%b=%b" % (name.lower(), value) for name, value in request.headers if name.lower() in CREDENTIALS]
    query = request.path.partition(b"?")[2]
    found += [pair for pair in query.split(b"&") if pair.startswith(b"key=")]
    return digest(found)


def telling(call: Call, ignored: frozenset[bytes]) -> bytes:
    """The headers that may change the answer: sorted, with lower-case names. For equal heads this is done once."""
    facts = call.request.facts
    known = facts.get("cache_headers")
    if known is None or known[0] is not ignored:
        request = call.request
        pairs = headers_of(request.headers, IGNORED | ignored | listed(request.names, request.headers))
        known = facts["cache_headers"] = (ignored, digest([part for pair in pairs for part in pair]))
    found: bytes = known[1]
    return found


def headers_of(headers: Headers, dropped: frozenset[bytes]) -> Sequence[tuple[bytes, bytes]]:
    """Values of one name keep their order."""
    found = []
    for name, value in headers:
        lower = name.lower()
        if lower in dropped or lower in HOP_BY_HOP or lower in CREDENTIALS or lower.startswith(PREFIXES):
            continue
        found.append((lower, value))
    return sorted(found, key=_name)


def _name(header: tuple[bytes, bytes]) -> bytes:
    return header[0]


def meant_by(body: bytes) -> bytes | None:
    """The digest of what a body says."""
    text = canonical(body)
    return None if text is None else hashlib.sha256(text).digest()


def canonical(body: bytes) -> bytes | None:
    """The meaning of a body as text. None where it cannot be told."""
    try:
        value = _decode(body)
        quotes = body.count(b'"')
        if type(value) is dict:
            text = _encode(value)
            if text.count(b'"') != quotes or b"\\u0022" in body:
                return None  # a member is repeated, or could be: an escaped quote hides the count
            if "stream" in value or "stream_options" in value:
                text = _encode(without_stream(value))
            return text
        return None
    except FAULTS:
        return None


def meaning(text: bytes) -> bytes | None:
    """Any JSON value as text that is the same for the same value. None where that cannot be told."""
    try:
        found = _encode(_decode(text))
    except FAULTS:
        return None
    return None if found.count(b'"') != text.count(b'"') or b"\\u0022" in text else found


def without_stream(value: Mapping[str, Any]) -> dict[str, Any]:
    """The members but for how the answer is sent; what else stands in `stream_options` stays."""
    found = {name: member for name, member in value.items() if name not in _STREAM}
    options = value.get("stream_options")
    if type(options) is dict:
        rest = {name: member for name, member in options.items() if name != "include_usage"}
        if rest:
            found["stream_options"] = rest
    elif options is not None:
        found["stream_options"] = options
    if type(value.get("stream", False)) is not bool:
        found["stream"] = value["stream"]
    return found


def entry_name(key: bytes) -> str:
    """By which people know an entry; too short to be a key."""
    return key[:8].hex()
