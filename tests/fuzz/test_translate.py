"""Whatever bytes a client sends is translated or refused with a GatewayError; whatever an upstream sends gives whole
events, never more than one end, and no success that the upstream did not give."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.sse import Splitter
from gateway.dialects.translate.hub import Asked, StreamTranslator, Translation
from gateway.errors import GatewayError
from gateway.testing import cassettes

GOLDEN = Path(__file__).parents[1] / "golden" / "cassettes"
UPSTREAMS = ("openai_chat", "anthropic", "gemini")
CLIENTS = (*UPSTREAMS, "openai_responses")
SEEDS = {
    "openai_chat": ("openai/chat-*.json", "openrouter/chat-*.json", "mistral/chat-*.json", "groq/chat-*.json"),
    "anthropic": ("anthropic/messages-*.json",),
    "gemini": ("gemini/generateContent-*.json", "vertex/generateContent-*.json"),
    "openai_responses": ("openai/responses-*.json", "deepseek/responses-*.json"),
}
PLAIN = {
    "openai_chat": b'{"model":"m","stream":%b,"stream_options":{"include_usage":true},'
    b'"messages":[{"role":"user","content":"x"}]}',
    "anthropic": b'{"model":"m","stream":%b,"max_tokens":9,"messages":[{"role":"user","content":"x"}]}',
    "gemini": b'{"contents":[{"parts":[{"text":"x"}]}],"labels":{"stream":"%b"}}',
    "openai_responses": b'{"model":"m","stream":%b,"input":"x"}',
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def seeds(name):
    paths = [path for pattern in SEEDS[name] for path in sorted(GOLDEN.glob(pattern))]
    return [found for found in map(cassettes.load, paths) if len(found.body) < 20_000]


ANSWERS = {name: seeds(name) for name in SEEDS}


def replaced(value, dice, fresh):
    """Somewhere in a JSON value stands another one."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        name = dice.choice(list(value))
        return {**value, name: replaced(value[name], dice, fresh)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(len(value))
        return [*value[:at], replaced(value[at], dice, fresh), *value[at + 1 :]]
    return fresh


def mutated(data, dice):
    data = bytearray(data)
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.randint(0, 40))
        match dice.randrange(5):
            case 0:
                del data[at:end]
            case 1:
                data[at:at] = data[at:end] * 2
            case 2:
                data[at:at] = dice.choice([b"\n\n", b'"', b"\\", b"{", b"]", b"null", b"1e99", b"[DONE]", b"\xff"])
            case 3:
                del data[at:]
            case _:
                data[at:end] = data[at:end][::-1]
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(CLIENTS),
    st.sampled_from(UPSTREAMS),
    st.randoms(use_true_random=False),
    json_values,
    st.integers(0, 4),
)
def test_any_request_is_translated_or_refused(client, upstream, dice, fresh, changes):
    exchange = dice.choice([found for found in ANSWERS[client] if found.request_body])
    try:
        body = json.loads(exchange.request_body)
    except ValueError:
        return
    for _ in range(changes):
        body = replaced(body, dice, fresh)
    everything = ("messages", "contents", "input", "tools", "system") if dice.random() < 0.3 else ()
    asked = Asked(model="gemini-3-flash", stream=dice.random() < 0.5, droppable=everything, request_id="r")
    for text in (json.dumps(body).encode("utf-8", "surrogatepass"), mutated(exchange.request_body, dice)):
        try:
            sent = Translation(client, upstream, text, asked).sent
        except GatewayError as fault:
            assert 400 <= fault.status < 500  # noqa: PT017 the refusal of any body
            continue
        assert isinstance(json.loads(sent.body), dict)
        assert len(sent.body) < 20 * len(text) + 4096


def asking(client, upstream, stream):
    body = PLAIN[client] % (b"true" if stream else b"false")
    return Translation(client, upstream, body, Asked(model="m", stream=stream, request_id="r", now=1))


ENDS = ("message_stop", "response.completed", "response.incomplete")


def is_end(data):
    """Of a stream; the same words may also stand in a text."""
    return data == b"[DONE]" or json.loads(data).get("type") in ENDS


def judged(client, translator: StreamTranslator, body):
    """Whole events; an end only where it is said to be one, and nothing behind it."""
    splitter = Splitter()
    found = [data for _, data in splitter.feed(body)]
    assert not splitter.end()
    for data in found:
        assert data == b"[DONE]" or isinstance(json.loads(data), dict)
    last = found[-1] if found else b""
    if client != "gemini":
        assert (bool(found) and is_end(last)) == translator.done
        assert not any(map(is_end, found[:-1]))
    if translator.failed:
        assert b'"error"' in last
    assert not (translator.done and translator.failed)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CLIENTS), st.sampled_from(UPSTREAMS), st.randoms(use_true_random=False), st.booleans())
def test_any_stream_gives_whole_events_and_one_end(client, upstream, dice, twist):
    exchange = dice.choice([found for found in ANSWERS[upstream] if found.stream])
    data = mutated(exchange.body, dice) if twist else reshaped(exchange.body, dice)
    outs = []
    for pieces in (1, dice.randint(2, 30)):
        translator = asking(client, upstream, stream=True).stream()
        edges = [0, *sorted(dice.randrange(len(data) + 1) for _ in range(pieces - 1)), len(data)]
        out = b"".join(translator.feed(data[start:end]) for start, end in itertools.pairwise(edges))
        out += translator.end()
        judged(client, translator, out)
        assert translator.feed(data) + translator.end() == b"" or not (translator.done or translator.failed)
        outs.append(out)
    assert outs[0] == outs[1]


def reshaped(body, dice):
    """One event says something else somewhere."""
    events = body.split(b"\n\n")
    at = dice.randrange(len(events))
    name, mark, data = events[at].partition(b"data: ")
    try:
        value = replaced(json.loads(data), dice, dice.choice([None, 3, -1, "x", [], {}, [{}], {"a": "b"}, True]))
    except ValueError:
        return body
    events[at] = name + mark + json.dumps(value).encode()
    return b"\n\n".join(events)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(CLIENTS),
    st.sampled_from(UPSTREAMS),
    st.randoms(use_true_random=False),
    json_values,
    st.integers(0, 3),
)
def test_any_document_is_translated_or_refused(client, upstream, dice, fresh, changes):
    exchange = dice.choice([found for found in ANSWERS[upstream] if not found.stream])
    try:
        value = json.loads(exchange.body)
    except ValueError:
        return
    for _ in range(changes):
        value = replaced(value, dice, fresh)
    translation = asking(client, upstream, stream=False)
    for body in (json.dumps(value).encode("utf-8", "surrogatepass"), mutated(exchange.body, dice)):
        for read in (translation.document, translation.gathered):
            try:
                assert isinstance(json.loads(read(body)), dict)
            except GatewayError as fault:
                assert fault.status == 502  # noqa: PT017 the refusal of any answer
        assert json.loads(translation.error(500, body))["error"]


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_memory_stays_small(upstream):
    """A stream without end of small events is not kept."""
    exchange = next(found for found in ANSWERS[upstream] if found.stream)
    piece = exchange.body.partition(b"\n\n")[0] + b"\n\n"
    translator = asking("openai_chat", upstream, stream=True).stream()
    for _ in range(2000):
        translator.feed(piece)
    held = translator._reader
    assert sum(len(value) for value in vars(held).values() if isinstance(value, dict | set | list)) < 50
