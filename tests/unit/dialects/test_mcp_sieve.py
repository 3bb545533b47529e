"""Hidden tools are taken out of lists, and nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import mcp_sieve
from gateway.dialects.mcp_sieve import Sieve, sifted
from gateway.dialects.sse import EVENT_END

NAMES = ["read_file", "delete_file", "add", "läsen", 'quo"te']


def shown(name: str) -> bool:
    return not name.startswith("delete")


def listing(names: list[str], **more: Any) -> dict[str, Any]:
    tools = [{"name": name, "description": f"tools, [{name}]", "inputSchema": {"name": "x"}} for name in names]
    return {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "nextCursor": "c", **more}}


def run(data: bytes, *, stream: bool, size: int = 1 << 20, allowed: Any = shown) -> bytes:
    sieve = Sieve(allowed, stream=stream)
    out = [sieve.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join(out) + sieve.end()


def test_exactly_the_hidden_entries_go() -> None:
    text = (
        b'{"id" : 1,"result":{ "tools" : [ {"name":"a"} ,\n {"name":"delete_x","k":[1,{}]} , {"name":"b"}\t], "z":1}}'
    )
    assert sifted(text, shown) == b'{"id" : 1,"result":{ "tools" : [ {"name":"a"} , {"name":"b"}\t], "z":1}}'
    first = b'{"result":{"tools":[{"name":"delete_x"}, {"name":"b"} ,{"name":"c"}]}}'
    assert sifted(first, shown) == b'{"result":{"tools":[{"name":"b"} ,{"name":"c"}]}}'
    last = b'{"result":{"tools":[{"name":"b"}, {"name":"delete_x"} ]}}'
    assert sifted(last, shown) == b'{"result":{"tools":[{"name":"b"} ]}}'
    all_ = b'{"result":{"tools":[ {"name":"delete_x"},{"name":"delete_y"} ]}}'
    assert json.loads(sifted(all_, shown)) == {"result": {"tools": []}}


@given(st.lists(st.sampled_from(NAMES), max_size=8), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 60))
def test_what_remains_is_what_may_be_seen(names: list[str], indent: int | None, ascii_: bool, size: int) -> None:
    message = listing(names)
    text = json.dumps(message, indent=indent, ensure_ascii=ascii_).encode()
    out = run(text, stream=False, size=size)
    if all(map(shown, names)):
        assert out == text
    expected = [tool for tool in message["result"]["tools"] if shown(tool["name"])]
    assert json.loads(out) == {**message, "result": {**message["result"], "tools": expected}}


@given(
    st.lists(st.lists(st.sampled_from(NAMES), max_size=4), max_size=4),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.integers(1, 60),
)
def test_streams_are_sifted_event_by_event(lists: list[list[str]], line: bytes, size: int) -> None:
    def events(lists: list[list[str]]) -> bytes:
        blocks = [b"event: message", b"id: 4", b": comment about tools"]
        made = b""
        for names in lists:
            text = json.dumps(listing(names)).encode()
            made += line.join([*blocks, b"data: " + text, b"", b""])
        return made + b": tool ping" + line * 2

    kept = [[name for name in names if shown(name)] for names in lists]
    assert run(events(lists), stream=True, size=size) == events(kept)


def test_events_before_the_end_are_not_held_back() -> None:
    sieve = Sieve(shown, stream=True)
    assert sieve.feed(b'data: {"method":"notifications/progress"}\n\ndata: {"resu') == (
        b'data: {"method":"notifications/progress"}\n\n'
    )
    assert sieve.feed(b'lt":{"tools":[{"name":"delete_x"}]}}\n\n') == b'data: {"result":{"tools":[]}}\n\n'
    assert sieve.end() == b""


def test_data_on_several_lines_is_one_message() -> None:
    raw = b'id: 1\ndata: {"result":{"tools":[\ndata: {"name":"delete_x"},{"name":"a"}\ndata: ]}}\nretry: 3\n\n'
    out = run(raw, stream=True)
    assert out == b'id: 1\ndata: {"result":{"tools":[{"name":"a"} ]}}\nretry: 3\n\n'.replace(b"[{", b"[ {")
    harmless = raw.replace(b"delete_x", b"x")
    assert run(harmless, stream=True) == harmless


def test_a_batch_is_sifted_message_by_message() -> None:
    batch = [listing(["a", "delete_x"]), {"id": 2, "result": {"content": "tools"}}, listing(["delete_y"])]
    out = json.loads(run(json.dumps(batch).encode(), stream=False))
    assert [len(message["result"].get("tools", "tools")) for message in out] == [1, 5, 0]


@pytest.mark.parametrize(
    "text",
    [
        '{"id":3,"result":{"tools":[]},"result":{"tools":[{"name":"delete_x"}]}}',
        '{"id":3,"result":{"tools":[],"tools":[{"name":"delete_x"}]}}',
        '{"id":3,"result":{"tools":[],"Tools":[{"name":"delete_x"}]}}',
        '{"id":3,"result":{"tools":[{"name":"delete_x"}]}',
        '{"id":3,"result":{"tools":[{"name":"delete_x"}]}} x',
    ],
)
def test_what_is_not_certain_is_withheld(text: str) -> None:
    out = json.loads(run(text.encode(), stream=False))
    assert out["error"]["code"] == -32603
    assert "delete_x" not in json.dumps(out)
    event = run(f"data: {text}\n\n".encode(), stream=True)
    assert event.startswith(b'data: {"jsonrpc":"2.0","id":')
    assert b"delete_x" not in event


@pytest.mark.parametrize(
    "entry",
    [
        '{"name":"a","name":"delete_x"}',
        '{"name":"a","Name":"delete_x"}',
        '{"Name":"delete_x"}',
        '{"Name":"a"}',
        '{"n\\u0061me":"delete_x"}',
        '{"name":["a"]}',
        '{"name":null}',
        "{}",
    ],
)
def test_an_entry_whose_name_is_not_certain_is_hidden(entry: str) -> None:
    assert json.loads(run(f'{{"result":{{"tools":[{entry}]}}}}'.encode(), stream=False)) == {"result": {"tools": []}}


@pytest.mark.parametrize(
    "text",
    [
        '{"result":{"Tools":[{"name":"delete_x"}]}}',
        '{"Result":{"tools":[{"name":"delete_x"}]}}',
        '{"re\\u0073ult":{"t\\u006fols":[{"name":"delete_x"}]}}',
        '{"result":{"toolſ":[{"name":"delete_x"}]}}',
        '\n {"result":{"tools":[{"name":"delete_x"}]}} \n',
    ],
)
def test_lists_are_known_however_their_key_is_written(text: str) -> None:
    assert b"delete_x" not in run(text.encode(), stream=False)
    if "\n" not in text:
        assert b"delete_x" not in run(b"\xef\xbb\xbfdata:" + text.encode() + b"\n\n", stream=True)


def test_the_end_of_a_stream_without_an_empty_line_is_sifted_too() -> None:
    assert run(b'data: {"result":{"tools":[{"name":"delete_x"}]}}\n', stream=True) == b'data: {"result":{"tools":[]}}\n'


def test_what_is_too_large_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_sieve, "MAX_HELD", 1000)
    big = json.dumps(listing(["a"], pad="x" * 2000)).encode()
    assert json.loads(run(big, stream=False, size=100))["error"]["code"] == -32603
    out = run(b"data: " + big + b'\n\ndata: {"id":2}\n\n', stream=True, size=100)
    first, second = out.split(b"\n\n")[:2]
    assert json.loads(first.removeprefix(b"data: "))["error"]["code"] == -32603
    assert second == b'data: {"id":2}'


def test_the_end_of_what_is_too_large_may_be_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_sieve, "MAX_HELD", 40)
    for size in (1, 2, 3, 5, 41, 50):
        for end in (b"\n\n", b"\r\n\r\n", b"\r\r"):
            out = run(b"data: " + b"x" * 100 + end + b"data: 1" + end, stream=True, size=size)
            assert out.count(b"withheld") == 1
            assert out.endswith(b"\n\ndata: 1" + end)


def test_no_byte_of_a_large_event_is_searched_again_with_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []

    class Counting:
        @staticmethod
        def finditer(text: bytearray, start: int) -> Any:
            searched.append(len(text) - start)
            return EVENT_END.finditer(text, start)

    monkeypatch.setattr(mcp_sieve, "EVENT_END", Counting)
    event = b"data: " + b"x" * 5000 + b"\r\n\r\n"
    assert run(event, stream=True, size=10) == event
    assert sum(searched) < 2 * len(event)


@given(st.binary(max_size=300), st.integers(1, 20), st.booleans())
def test_with_nothing_hidden_every_byte_passes(data: bytes, size: int, stream: bool) -> None:
    if b"tool" in data.lower() or b"\\u" in data or b"\xc5\xbf" in data:
        return
    assert run(data, stream=stream, size=size) == data
