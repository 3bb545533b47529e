"""WebSocket sessions: frames in both directions, compressed or not, cut anywhere; usages summed."""

from __future__ import annotations

import json
import random
import zlib

import pytest

from gateway.call import ToolUse, Usage
from gateway.dialects.sse import MAX_EVENT
from gateway.dialects.websocket import ws_error, ws_meter
from gateway.dialects.websocket_frames import MAX_ASKED, FrameReader
from gateway.errors import Overloaded

TEXT, BINARY, MORE, PING = 1, 2, 0, 9


def frame(payload, opcode=TEXT, *, final=True, masked=False, compressed=False):
    head = bytes([(0x80 if final else 0) | (0x40 if compressed else 0) | opcode])
    size, mask_bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65_536:
        head += bytes([mask_bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask_bit | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = b"\x12\x34\x56\x78"
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Deflater:
    def __init__(self, *, keeps=True):
        self.keeps = keeps
        self.make()

    def make(self):
        self.deflate = zlib.compressobj(wbits=-15)

    def __call__(self, text):
        if not self.keeps:
            self.make()
        return (self.deflate.compress(text) + self.deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def read(data, size=None, **options):
    reader = FrameReader(**{"deflate": False, "keeps_context": True, **options})
    size = size or max(len(data), 1)
    return [text for at in range(0, len(data), size) for text in reader.feed(data[at : at + size])]


STREAM = (
    frame(b"one")
    + frame(b"", PING)
    + frame(b"tw", final=False)
    + frame(b"ping", PING, masked=True)
    + frame(b"o", MORE, masked=True)
    + frame(b"\x00\x01", BINARY)
    + frame(b"x" * 70_000, masked=True)
    + frame(b"y" * 300)
    + frame(b"bye", 8)
)
MESSAGES = [b"one", b"two", b"x" * 70_000, b"y" * 300]


@pytest.mark.parametrize("size", [1, 2, 5, 1000, None])
def test_messages(size):
    assert read(STREAM, size) == MESSAGES


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("size", [1, 100, None])
def test_compressed_messages(keeps, size):
    deflate = Deflater(keeps=keeps)
    texts = [b'{"type":"a"}' * 50, b'{"type":"a"}' * 50, b"plain", b'{"type":"b"}']
    first, second, third = deflate(texts[0]), deflate(texts[1]), deflate(texts[3])
    data = frame(first, compressed=True, masked=True)
    data += frame(second[:3], compressed=True, final=False) + frame(second[3:], MORE)
    data += frame(texts[2]) + frame(third, compressed=True)
    assert read(data, size, deflate=True, keeps_context=keeps) == texts


def test_messages_too_large_are_lost_but_nothing_else():
    reader = FrameReader(deflate=False, keeps_context=True)
    found, held = [], 0
    huge = frame(b"x" * (MAX_EVENT + 1))
    pieces = [frame(b"x" * 65_536, TEXT if n == 0 else MORE, final=n == 39) for n in range(40)]
    for data in [huge[at : at + 65_536] for at in range(0, len(huge), 65_536)] + [frame(b"a"), *pieces, frame(b"b")]:
        found += reader.feed(data)
        held = max(held, len(reader._buffer) + len(reader._message))
    assert found == [b"a", b"b"]
    assert held <= MAX_EVENT + 2 * 65_536


def test_a_deflate_bomb_ends_the_reading_of_compressed_messages():
    deflate = Deflater()
    bomb = deflate(b"\0" * (20 * 1024 * 1024))
    data = frame(bomb, compressed=True) + frame(deflate(b"after"), compressed=True) + frame(b"plain")
    assert read(data, deflate=True) == [b"plain"]


def test_a_deflate_bomb_without_context_costs_one_message():
    deflate = Deflater(keeps=False)
    bomb, after = deflate(b"\0" * (20 * 1024 * 1024)), deflate(b"after")
    data = frame(bomb, compressed=True) + frame(after, compressed=True)
    assert read(data, deflate=True, keeps_context=False) == [b"after"]


def test_garbage_never_raises():
    dice = random.Random(3)
    for _ in range(300):
        data = bytes(dice.randrange(256) for _ in range(dice.randrange(200)))
        for options in ({}, {"deflate": True}, {"deflate": True, "keeps_context": False}):
            read(data, dice.choice([1, 7, None]), **options)


USAGE = {"input_tokens": 10, "output_tokens": 5, "input_token_details": {"cached_tokens": 2, "audio_tokens": 4}}


def done(kind="response.done", **more):
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    return {"type": kind, "response": {"id": "r", "status": "completed", "output": [call], "usage": USAGE, **more}}


def session(*messages):
    meter = ws_meter()
    for direction, message in messages:
        meter.feed_text(direction, message if isinstance(message, str) else json.dumps(message))
    return meter


def test_usages_are_summed():
    meter = session(
        ("upstream", {"type": "session.created", "session": {"model": "gpt-realtime"}}),
        ("client", {"type": "response.create"}),
        ("upstream", {"type": "response.output_audio.delta", "delta": "AAAA"}),
        ("upstream", done()),
        ("upstream", done("response.completed", model="gpt-realtime-2")),
        ("upstream", done(usage=None)),
    )
    answer = meter.end()
    assert meter.responses == 3
    assert answer.usage == Usage(20, 10, 4, detail={"input_audio_tokens": 8})
    assert answer.model == "gpt-realtime-2"
    assert answer.tool_uses == (ToolUse("c1", "f"),)
    assert answer.complete


CREATE, CREATED = {"type": "response.create"}, {"type": "response.created", "response": {"id": "r"}}
REFUSED = {"type": "error", "error": {"type": "invalid_request_error", "code": "x"}}


@pytest.mark.parametrize(
    ("messages", "pending"),
    [
        ([], False),
        ([("client", {"type": "conversation.item.create", "item": {"text": "response.create"}})], False),
        ([("client", {"type": "session.update", "session": {"model": "m"}})], False),
        ([("client", CREATE)], True),
        ([("client", json.dumps(CREATE).replace("r", "\\u0072"))], True),
        ([("client", CREATE), ("upstream", REFUSED)], False),
        ([("client", CREATE), ("upstream", CREATED)], True),
        ([("upstream", CREATED)], True),  # of its own accord: it has heard somebody
        ([("client", CREATE), ("upstream", CREATED), ("upstream", done())], False),
        ([("client", CREATE), ("upstream", done())], False),
        ([("client", CREATE), ("upstream", CREATED), ("upstream", done()), ("client", CREATE)], True),
        ([("client", CREATE), ("client", CREATE), ("upstream", CREATED), ("upstream", done())], True),
    ],
)
def test_what_was_asked_for_and_is_not_told_of_leaves_a_session_pending(messages, pending):
    assert session(*messages).end().pending is pending


def test_what_does_not_go_on_is_not_waited_for():
    meter = session(("client", CREATE), ("client", {"type": "session.update", "session": {"model": "m"}}))
    meter.withheld()
    assert meter.end().pending
    meter = session(("client", {"type": "response.create", "model": "m"}))
    meter.withheld()
    assert not meter.end().pending


@pytest.mark.parametrize(
    "config",
    [{"input_audio_transcription": {"model": "ear"}}, {"audio": {"input": {"transcription": {"model": "ear"}}}}],
)
def test_what_was_said_is_written_down_by_a_model_of_its_own(config):
    tokens = {"type": "tokens", "input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
    heard = {"type": "conversation.item.input_audio_transcription.completed", "transcript": "hi", "usage": tokens}
    meter = session(("upstream", {"type": "session.updated", "session": config}), *[("upstream", heard)] * 2)
    used = meter.used()
    assert used.parts == meter.end().parts == ((Usage(14, 6), "ear", {}),)
    assert meter.used() is None
    assert not meter.end().pending
    seconds = {**heard, "usage": {"type": "duration", "seconds": 9}}
    assert session(("upstream", seconds)).end().pending  # nothing here has a price by the second


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"response.create","model":"m","model":"other"}',
        '{"type":"response.create","model":"other","response":{"model":"m","model":"m"}}',
        '{"type":"session.update","session":{"model":"m","model":"other"}}',
        '{"type":"response.create","model":"m","temperature":NaN}',
    ],
)
def test_a_model_that_is_named_twice_is_another_one(message):
    assert session(("client", message)).strays("m")
    assert not session(("client", '{"type":"response.create","model":"M","response":{"model":"m"}}')).strays("m")


def test_usage_in_messages_of_the_client_is_not_believed():
    assert session(("client", done())).end().usage is None


def test_the_model_asked_for():
    assert session(("client", {"type": "response.create", "model": "gpt-5"})).end().model == "gpt-5"
    update = {"type": "session.update", "session": {"model": "gpt-6"}}
    assert session(("client", update)).end().model == "gpt-6"


def test_errors():
    meter = session(("upstream", {"type": "error", "error": {"type": "t", "message": "m"}}))
    assert (meter.failed, meter.end().error_message) == ("t", "m")
    assert session(("upstream", {"type": "error", "code": "c"})).failed == "c"


@pytest.mark.parametrize("text", ["", "{", "[]", '"response."', '{"type":"response.done","response":5}', "\ud800"])
def test_odd_messages(text):
    meter = session(("upstream", text), ("client", text), ("upstream", done()))
    assert meter.end().usage.input_tokens == 10


def test_tap(talk):
    """As the pipeline uses it: raw bytes of both directions, compressed as negotiated."""
    deflate = Deflater()
    tap = talk("openai_responses").dialect.tap(b"permessage-deflate; client_no_context_takeover")
    create = json.dumps({"type": "response.create", "model": "gpt-5"}).encode()
    tap.feed(True, frame(Deflater(keeps=False)(create), compressed=True, masked=True))
    stream = b"".join(frame(deflate(json.dumps(done()).encode()), compressed=True) for _ in range(3))
    for byte in stream:
        tap.feed(False, bytes([byte]))
    answer = tap.end()
    assert answer.usage.input_tokens == 30
    assert answer.model == "gpt-5"


def test_a_session_is_closed_only_between_messages(talk):
    """Behind a whole message: an error event and a close frame that a client can read. Within one: nothing."""
    tap = talk("openai_responses").dialect.tap(b"")
    text = frame(json.dumps(done()).encode())
    for end in (1, len(text) - 1):
        tap.feed(False, text[:end])
        assert tap.close(Overloaded("busy"), "q") == b""
        tap.feed(False, text[end:])
    begun = frame(b'{"type":', final=False)
    tap.feed(False, begun)
    assert tap.close(Overloaded("busy"), "q") == b""
    tap.feed(False, frame(b'"x"}', MORE))
    data = tap.close(Overloaded("busy"), "q")
    (error,) = read(data)
    assert json.loads(error)["error"]["code"] == "overloaded"
    close = frame((1008).to_bytes(2, "big") + b"overloaded", 8)
    assert data.endswith(close)


def test_what_cannot_be_read_may_ask_for_anything(talk):
    tap = talk("openai_responses").dialect.tap(b"permessage-deflate")
    create = json.dumps({"type": "response.create", "model": "m"}).encode()
    tap.feed(True, frame(create + b" " * (3 * MAX_EVENT), masked=True))
    assert not tap.strays("m")
    tap.feed(True, frame(create, BINARY, masked=True))
    assert not tap.strays("m")
    assert tap.strays("other")
    tap.feed(True, frame(b"no deflate at all", compressed=True, masked=True))
    assert tap.strays("m")
    for large in (frame(b"x" * (MAX_ASKED + 1), BINARY), frame(Deflater()(bytes(MAX_ASKED + 1)), compressed=True)):
        tap = talk("openai_responses").dialect.tap(b"permessage-deflate")
        tap.feed(True, large)
        assert tap.strays("m")
    tap = talk("openai_responses").dialect.tap(b"")
    tap.feed(False, frame(b"x" * (MAX_EVENT + 1)))
    assert tap.end().pending
    assert not tap.strays("m")


def test_a_message_too_large_to_be_kept_is_within_until_it_ends(talk):
    tap = talk("openai_responses").dialect.tap(b"")
    large = frame(b"x" * (MAX_EVENT + 5))
    tap.feed(False, large[:-1])
    assert tap.close(Overloaded("busy"), "q") == b""
    tap.feed(False, large[-1:])
    assert tap.close(Overloaded("busy"), "q")


def test_what_a_session_used_is_told_once_for_each_answer(talk):
    tap = talk("openai_responses").dialect.tap(b"")
    assert tap.used() is None
    for number in (1, 2):
        tap.feed(False, frame(json.dumps(done()).encode()))
        used = tap.used()
        assert used.usage.input_tokens == 10 * number
        assert tap.used() is None
    assert tap.end().usage.input_tokens == 20


def test_error_message():
    value = json.loads(ws_error(Overloaded("busy"), "q1"))
    assert (value["type"], value["status"], value["error"]["code"]) == ("error", 503, "overloaded")
