"""What a call waits for on purpose is none of the time that the gateway itself takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gateway.call import Call
from gateway.ports import Gateway


@contextlib.contextmanager
def waiting(call: Call, gw: Gateway) -> Iterator[None]:
    """The block waits: before another try, on an equal call, for a budget, at the pace of an answer."""
    began = gw.monotonic()
    try:
        yield
    finally:
        call.waited += gw.monotonic() - began
