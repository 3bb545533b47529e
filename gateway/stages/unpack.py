"""Unpack: decode a compressed body, for reading, and read a long one. Before `arrive`, which reads the others, and
behind the key: who has none has nothing expanded.

Rules
1. What is sent stays as it came.
2. It is done step by step, and everything else of the worker comes in between: a small body may expand to a large one.
3. Many bodies may expand at once up to EXPANDED bytes each, and one beyond that: memory is bounded, and who sends
   little does not wait for who sends much.
4. Reading goes over a body many times, each at some 1 GB/s: a long one is read aside.
"""

from __future__ import annotations

from functools import partial

from gateway.call import Call, Request
from gateway.errors import BadBody, ClientGone
from gateway.policy.encoding import Decoder, Identity, decoder_for
from gateway.ports import Downstream, Gateway
from gateway.stages.arrive import Look, look_at, readable
from gateway.stages.authorize import authenticate

LONG = 1024 * 1024
EXPANDED = 4 * 1024 * 1024
UNBOUNDED = float("inf")  # but for the limits of the decoder


def is_long(call: Call) -> bool:
    return len(readable(call).body) > LONG


async def unpack(call: Call, down: Downstream, gw: Gateway) -> None:
    """Set `call.plain`, where the body is compressed and anybody reads it, and `call.asked`, where it is long. Raises
    GatewayError."""
    look = look_at(call, gw)
    call.route = look.route
    authenticate(call, gw)
    await decode(call, look, down, gw)
    if is_long(call):
        call.asked = await gw.turns.aside(partial(look.dialect.read, look.route, readable(call)))
        if down.gone:
            raise ClientGone()


async def decode(call: Call, look: Look, down: Downstream, gw: Gateway) -> None:
    """Set `call.plain`. Raises BadBody, ClientGone."""
    request = call.request
    decoder = decoder_for(request.names.get(b"content-encoding", b""))
    if not look.coded or isinstance(decoder, Identity):
        return
    pieces = [decoder.begin(request.body)]
    await go_on(decoder, pieces, EXPANDED, down, gw)
    if decoder.behind:
        async with gw.turns.alone():
            await go_on(decoder, pieces, UNBOUNDED, down, gw)
    if decoder.broken:
        raise BadBody("the compressed request body cannot be decoded, or is too large", code="invalid_encoding")
    call.plain = without_coding(request, b"".join(pieces))


async def go_on(decoder: Decoder, pieces: list[bytes], most: float, down: Downstream, gw: Gateway) -> None:
    """Decode on, to about so many bytes. Raises ClientGone."""
    size = sum(map(len, pieces))
    while decoder.behind and size <= most:
        await gw.turns.next()
        if down.gone:
            raise ClientGone()
        pieces.append(decoder.more())
        size += len(pieces[-1])


def without_coding(request: Request, body: bytes) -> Request:
    headers = [header for header in request.headers if header[0].lower() != b"content-encoding"]
    names = {name: value for name, value in request.names.items() if name != b"content-encoding"}
    return Request(
        request.method, request.path, headers, body, request.client, names, request.port, checks=request.checks
    )
