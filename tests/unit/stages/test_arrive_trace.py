"""The trace that a call arrives in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.call import Asked, Call, Request, Route, Who
from gateway.policy.trace_ids import run_trace_id
from gateway.stages.arrive import arrive, new_call

PARENT = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


def arrived(run_id: str, *headers: tuple[bytes, bytes]) -> Call:
    """A call of that run, as it is after `arrive`."""
    gw: Any = SimpleNamespace(
        random=lambda size: bytes(range(1, size + 1)),
        now=lambda: 1,
        monotonic=lambda: 1,
        instance=b"gate",
        routes=SimpleNamespace(resolve=lambda *_: Route("/v1/x", "opaque", "", "u", b"/x")),
        dialects={"opaque": SimpleNamespace(read=lambda *_: Asked())},
        aliases={},
        identity=SimpleNamespace(identify=lambda _: (Who(run_id=run_id), [])),
        journal=SimpleNamespace(begin=lambda _: 7),
        router=None,
        keys=None,
    )
    call = new_call(Request(b"POST", b"/v1/x", headers, b"{}", names=dict(headers)), gw)
    arrive(call, gw)
    return call


def test_calls_of_a_run_share_a_trace() -> None:
    assert arrived("r").trace.trace_id == run_trace_id("r")


@pytest.mark.parametrize("run_id", ["", "r"])
def test_a_callers_trace_is_kept(run_id: str) -> None:
    trace = arrived(run_id, PARENT).trace
    assert (trace.trace_id, trace.parent_id) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


def test_without_a_run_a_call_has_a_trace_of_its_own() -> None:
    assert arrived("").trace.trace_id == bytes(range(1, 17)).hex()
