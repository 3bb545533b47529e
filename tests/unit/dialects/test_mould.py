"""Events that differ in their text alone are merged, and mean what they meant apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.call import Asked
from gateway.dialects.mould import Mould, mould_of
from gateway.dialects.openai_chat import ChatStream

KEY = b'"content":"'
GAP = b"\n\n"


def event(text: str, *, ascii: bool = False, **more: object) -> bytes:
    delta = {"content": text, **more}
    chunk = {"id": "c1", "model": "m", "created": 5, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=ascii).encode("utf-8", "surrogatepass")


def text_of(raw: bytes) -> str | None:
    return ChatStream(Asked()).text_of(ChatStream.shape.one.decode(raw))


def body(events: list[bytes], end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join([b"data: " + each + GAP for each in events]) + end


def facts(blob: bytes, monkeypatch: pytest.MonkeyPatch | None = None) -> object:
    meter = ChatStream(Asked())
    if monkeypatch is not None:
        monkeypatch.setattr(meter, "text_key", b"", raising=False)
    meter.feed(blob)
    return meter.end()


texts = st.lists(
    st.text(max_size=8) | st.sampled_from(['"', "\\", "\n", '","x":"', "\\u00e4", "ä", "}"]), min_size=8, max_size=30
)


@settings(deadline=None)
@given(texts, st.booleans(), st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["role", "refusal"])), max_size=3))
@example(["a"] * 20, False, [(4, "refusal")])
def test_a_stream_means_the_same_with_moulds_and_without(
    said: list[str], ascii: bool, others: list[tuple[int, str]]
) -> None:
    events = [event(text, ascii=ascii) for text in said]
    for at, key in others:
        events.insert(at, event("odd", **{key: "x"}))
    with pytest.MonkeyPatch.context() as patch:
        assert facts(body(events)) == facts(body(events), patch)


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=6) | st.sampled_from([b"\\", b'"', b"\\u00", b"41", b"\xc3", b"\xa4"]),
        min_size=8,
        max_size=14,
    )
)
@example([b"\xc3", b"\xa4"] * 6)
@example([b"\\u00", b"41"] * 6)
def test_texts_that_are_no_json_by_themselves_are_not_put_together(inner: list[bytes]) -> None:
    before, after = event("#").split(b"#")
    blob = body([event("first"), event("second"), *[before + text + after for text in inner], event("last")])
    with pytest.MonkeyPatch.context() as patch:
        assert facts(blob) == facts(blob, patch)


def test_a_run_of_texts_becomes_one_event() -> None:
    mould = mould_of(event("Hello"), KEY, text_of)
    assert mould is not None
    blob = body([event(f" {number}") for number in range(40)])
    merged = mould.merged(blob, GAP)
    assert merged.count(b"data: ") == 4  # the first, all in between, the last, the end
    assert merged.replace(mould_gap(mould), b"") == blob.replace(mould_gap(mould), b"")


def mould_gap(mould: Mould) -> bytes:
    return mould._after + GAP + b"data: " + mould._before


@pytest.mark.parametrize(
    "raw",
    [
        event("x", role="assistant", tool_calls=[{"index": 0, "id": "t"}]),
        event("x", refusal="no"),
        event("x").replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        event("x").replace(b'"index":0', b'"index":1'),
        event("x").replace(b'"created":5', b'"created":5,"message":{"content":"x"}'),
        event("x").replace(b'"content":"x"', b'"content": "x"'),
        b'{"choices":[],"content":"x"}',
        b'"content":"x',
    ],
)
def test_no_mould_is_taken_from_an_event_that_says_more(raw: bytes) -> None:
    assert mould_of(raw, KEY, text_of) is None
