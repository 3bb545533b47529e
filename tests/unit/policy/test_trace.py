"""trace: whatever a caller sends becomes a valid context, and what is valid is kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Trace
from gateway.policy.trace import read_baggage, trace_of

NEW_TRACE, NEW_SPAN = "f" * 32, "e" * 16
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NEW = Trace(NEW_TRACE, NEW_SPAN)


def read(*headers: tuple[bytes, bytes]) -> Trace:
    return trace_of(headers, NEW_TRACE, NEW_SPAN)


def parent(text: str) -> tuple[bytes, bytes]:
    return (b"traceparent", text.encode("latin-1"))


@pytest.mark.parametrize(("flags", "kept"), [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("08", 0)])
def test_a_valid_parent_is_followed_and_flags_are_bits(flags: str, kept: int) -> None:
    assert read(parent(f"00-{TRACE}-{SPAN}-{flags}")) == Trace(TRACE, NEW_SPAN, SPAN, kept)


def test_names_are_matched_in_any_case_and_space_around_is_ignored() -> None:
    assert read((b"TraceParent", f" 00-{TRACE}-{SPAN}-01\t".encode())).trace_id == TRACE


def test_a_future_version_is_read_as_far_as_we_know() -> None:
    assert read(parent(f"cc-{TRACE}-{SPAN}-01")).parent_id == SPAN
    assert read(parent(f"cc-{TRACE}-{SPAN}-01-what-comes-later")).parent_id == SPAN
    assert read(parent(f"cc-{TRACE}-{SPAN}-01.what")) == NEW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        "\xff" * 55,
    ],
)
def test_a_malformed_parent_starts_a_new_trace(text: str) -> None:
    assert read(parent(text), (b"tracestate", b"a=1")) == NEW


def test_two_parents_start_a_new_trace() -> None:
    assert read(parent(f"00-{TRACE}-{SPAN}-01"), parent(f"00-{TRACE}-{SPAN}-01")) == NEW


def test_foreign_state_is_kept_over_several_headers() -> None:
    states = [(b"tracestate", b"rojo=00f067aa0ba902b7, ,congo=t61rcWkgMzE"), (b"Tracestate", b"fw529a3039@dt=FfAf;x")]
    kept = read(parent(f"00-{TRACE}-{SPAN}-01"), *states).state
    assert kept == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,fw529a3039@dt=FfAf;x"


@pytest.mark.parametrize("state", [b"UPPER=1", b"a=1,a=2", b"novalue", b"a=", b"a=\x01", b"a=1=2"])
def test_malformed_state_is_dropped_alone(state: bytes) -> None:
    found = read(parent(f"00-{TRACE}-{SPAN}-01"), (b"tracestate", state))
    assert (found.trace_id, found.state) == (TRACE, "")


def test_no_more_than_32_members_of_state() -> None:
    members = [f"k{n}=v" for n in range(33)]
    assert read(parent(f"00-{TRACE}-{SPAN}-01"), (b"tracestate", ",".join(members[:32]).encode())).state
    assert not read(parent(f"00-{TRACE}-{SPAN}-01"), (b"tracestate", ",".join(members).encode())).state


@given(st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"other"]), st.binary(max_size=80))))
def test_anything_gives_a_valid_context(headers: list[tuple[bytes, bytes]]) -> None:
    found = trace_of(headers, NEW_TRACE, NEW_SPAN)
    assert re.fullmatch("[0-9a-f]{32}", found.trace_id)
    assert found.span_id == NEW_SPAN
    assert found.flags in range(4)


def test_baggage_is_decoded_and_properties_are_dropped() -> None:
    value = b"session.id=abc%2F1;ttl=3 , gen_ai.agent.name = My%20agent,broken,=x,session.id=second,e=%ff"
    assert read_baggage(value) == {"session.id": "abc/1", "gen_ai.agent.name": "My agent", "e": "�"}


def test_baggage_is_bounded() -> None:
    assert len(read_baggage(b",".join(b"k%d=1" % n for n in range(1000)))) == 64
    assert len(read_baggage(b"k=" + b"x" * 100_000)["k"]) < 8192


@given(st.binary(max_size=300))
def test_any_baggage_is_read(value: bytes) -> None:
    assert all(isinstance(text, str) for text in read_baggage(value).values())
