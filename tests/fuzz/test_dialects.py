"""Whatever bytes arrive: a dialect gives a right result or a GatewayError, and keeps little.

Mutations of real shapes reach deeper than noise: recorded answers are cut, repeated, flipped and spliced.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.call import Answer, Bounds, Request, Route, Usage
from gateway.dialects.body import read_object, scan, splice
from gateway.dialects.items import read_item
from gateway.dialects.registry import DIALECTS
from gateway.errors import GatewayError, StreamTruncated
from gateway.policy.splices import merged
from gateway.testing import cassettes

GOLDEN = Path(__file__).parents[1] / "golden" / "cassettes"
SEEDS = {
    "openai_chat": "openai/chat-*.json",
    "openai_completions": "openai/completions-*.json",
    "openai_responses": "openai/responses-*.json",
    "openai_embeddings": "openai/embeddings-*.json",
    "anthropic": "anthropic/messages-*.json",
    "gemini": "gemini/generateContent-*.json",
    "bedrock_converse": "bedrock/converse-*.json",
    "bedrock_invoke": "bedrock/invoke-*.json",
    "cohere": "cohere/*.json",
    "ollama": "local/*.json",
    "opaque": "cohere/*.json",
}
PATHS = {
    "gemini": b"/v1beta/models/g:streamGenerateContent",
    "bedrock_converse": b"/model/m/converse-stream",
    "bedrock_invoke": b"/model/meta.m/invoke-with-response-stream",
}
FRAMED = ("bedrock_converse", "bedrock_invoke")
KINDS = (b"text/event-stream", b"application/vnd.amazon.eventstream", b"application/json", b"", b"text/html")
names = st.sampled_from(sorted(DIALECTS))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def route(name):
    return Route("t", name, "chat", "up", PATHS.get(name, b"/v1/x"))


def seeds(name):
    found = [cassettes.load(path) for path in sorted(GOLDEN.glob(SEEDS[name]))]
    return [exchange for exchange in found if len(exchange.body) < 20_000]


def mutated(data, dice):
    """A few random edits."""
    data = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.randint(0, 40))
        match dice.randrange(6):
            case 0:
                del data[at:end]
            case 1:
                data[at:at] = data[at:end] * 3
            case 2:
                data[at:end] = bytes(dice.randrange(256) for _ in range(end - at))
            case 3:
                data[at:at] = dice.choice(
                    [b"\n\n", b"\r", b'"', b"\\", b"{", b"]", b"null", b"-1", b"1e999", b"[DONE]"]
                )
            case 4:
                del data[at:]
            case _:
                data[at:end] = data[at:end][::-1]
    return bytes(data)


def check(answer):
    """What every answer promises."""
    assert isinstance(answer, Answer)
    for usage in [answer.usage, *(part[0] for part in answer.parts)]:
        if usage is not None:
            counts = [*(getattr(usage, field) for field in usage.__struct_fields__[:5]), *usage.detail.values()]
            assert all(0 <= count < 10**14 for count in counts)
    assert len(answer.error_message) <= 500
    assert all(isinstance(text, str) for text in [answer.model, answer.response_id, *answer.finish_reasons])
    assert all(isinstance(value, str) for value in answer.pricing.values())


def attempt(read, *args):
    """(result, None) or (None, the GatewayError); anything else escapes."""
    try:
        return read(*args), None
    except GatewayError as fault:
        return None, fault


def play(name, body, data, dice, status, kind):
    """A whole call against one dialect; returns the answers at two different splits."""
    dialect = DIALECTS[name]
    asked, fault = attempt(dialect.read, route(name), Request(b"POST", route(name).path, (), body))
    if asked is None:
        assert 400 <= fault.status < 500
        body = b'{"stream":true}'
        asked = dialect.read(route(name), Request(b"POST", route(name).path, (), body))
    more = random.Random(len(body) + len(data))
    cheaper(name, asked, body, more)
    answers = []
    for pieces in (1, dice.randint(2, 30)):
        meter = dialect.meter(route(name), asked, status, kind)
        edges = [0, *sorted(dice.randrange(len(data) + 1) for _ in range(pieces - 1)), len(data)]
        for start, end in itertools.pairwise(edges):
            meter.feed(data[start:end])
            assert meter.produced(more.choice([0, 10**9])) >= 0
        dialect.interruption(StreamTruncated("cut"), meter, "r")
        answers.append(meter.end())
        check(answers[-1])
        said = dialect.interruption(StreamTruncated("cut"), meter, "r")
        assert said or (name in FRAMED and meter.broken)  # nothing can be said inside a message
    dialect.restate(route(name), data)
    stopped(dialect, asked, data, more, status, kind, name)
    return answers


def cheaper(name, asked, body, dice):
    """What makes a call cheaper leaves valid JSON, or says that it cannot."""
    dialect, at = DIALECTS[name], route(name)
    assert isinstance(dialect.bounds(at, asked), Bounds)
    edits, _ = attempt(dialect.cap_output, at, asked, body, dice.randint(1, 9000), dice.choice(["", "gpt-5"]))
    eased, _ = attempt(dialect.lower_effort, at, asked, body, dice.choice(["minimal", "low", "medium"]))
    changed = merged([*(edits or ()), *(eased or ()), *dialect.rename(at, asked, "other")[1]])
    if changed:
        assert isinstance(json.loads(splice(body, changed)), dict)


def stopped(dialect, asked, data, dice, status, kind, name):
    """A stream that is stopped keeps a whole number of its bytes, and gets an end that can be written."""
    meter = dialect.meter(route(name), asked, status, kind)
    for at in range(0, len(data), size := dice.randint(1, 200)):
        piece = data[at : at + size]
        meter.feed(piece)
        kept = meter.stop(piece) if dice.random() < 0.2 else -1
        assert -1 <= kept <= len(piece)
        if kept >= 0:
            end = dialect.finish_early(meter, asked, "r", Usage(1, 2))
            check(meter.end())
            assert dialect.finish_early(meter, asked, "r", Usage(1, 2)) == end
            return


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_mutated_recordings(name):
    dice = random.Random(name)
    for exchange in seeds(name):
        for _ in range(12):
            body = mutated(exchange.request_body, dice)
            data = mutated(exchange.body, dice)
            one, other = play(name, body, data, dice, dice.choice([200, 200, 200, 429]), dice.choice(KINDS))
            assert one == other


@settings(deadline=None)  # shared machines pause
@given(names, st.binary(max_size=300), st.binary(max_size=600), st.sampled_from([200, 400]), st.sampled_from(KINDS))
def test_noise(name, body, data, status, kind):
    one, other = play(name, body, data, random.Random(1), status, kind)
    assert one == other


@settings(deadline=None)  # shared machines pause
@given(names, st.lists(st.dictionaries(st.sampled_from(
    ["choices", "usage", "error", "type", "delta", "message", "response", "item", "candidates", "usageMetadata", "id",
     "model", "content_block", "index", "sequence_number", "x_groq", "content", "output",
     "event_type", "finish_reason", "text", "tool_calls", "generations", "meta", "billed_units", "tokens",
     "done", "done_reason", "prompt_eval_count", "eval_count"]
), json_values, max_size=5), max_size=4), st.sampled_from(KINDS))  # fmt: skip
def test_known_names_with_odd_values(name, events, kind):
    texts = [json.dumps(event) for event in events]
    stream = "".join(f"data: {text}\n\n" for text in texts).encode("utf-8", "surrogatepass")
    one, other = play(name, b'{"stream":true}', stream, random.Random(2), 200, kind)
    assert one == other
    for text in texts:
        play(name, text.encode(), text.encode(), random.Random(3), 200, kind)


def pairs(text):
    """Reference for duplicates: every key of the outermost object, decoded."""
    found = []

    def hook(items):
        found.append([key for key, _ in items])
        return dict(items)

    json.loads(text, object_pairs_hook=hook)
    return found[-1]


written_keys = st.sampled_from(["model", "mod\\u0065l", "n", "Model", "stream", "x y", "\\n"])


@settings(deadline=None)  # shared machines pause
@given(st.lists(st.tuples(written_keys, json_values)), st.sampled_from(["", " ", "\n\t"]))
@example([("n", 1), ("n", 1)], "")
def test_what_is_checked_is_what_is_sent(members, gap):
    written = [f'{gap}"{key}"{gap}:{gap}{json.dumps(value)}' for key, value in members]
    text = "{" + f"{gap},{gap}".join(written) + gap + "}"
    keys = pairs(text)
    found, fault = attempt(scan, text.encode())
    if found is None:
        assert fault.code in {"duplicate_key", "invalid_json", "invalid_number"}
        assert fault.code != "duplicate_key" or len({key.casefold() for key in keys}) < len(keys)
        return
    fields, spans = found
    assert list(fields) == keys
    whole = json.loads(text)
    for key, (start, end) in spans.items():
        assert repr(json.loads(text.encode()[start:end])) == repr(whole[key])


@settings(deadline=None)  # shared machines pause
@given(st.binary(max_size=400))
def test_bodies_of_noise(data):
    found, fault = attempt(read_object, data, ("messages",))
    assert found is not None or fault.status == 400


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='{}[]":,\\ae0 19.-tn', max_size=60))
def test_bodies_of_json_signs(text):
    """What is accepted is an object for any other reader, too."""
    found, _ = attempt(scan, text.encode())
    if found is not None:
        assert isinstance(json.loads(text), dict)


@settings(deadline=None)  # shared machines pause
@given(names, st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_items_of_noise(name, raw):
    found = read_item(name, raw)
    assert isinstance(found.role, str)
    assert len(found.canonical) == 16
    assert len(found.text_digest) in {0, 16}


@pytest.mark.parametrize("name", sorted(set(DIALECTS) - {"opaque"}))
@pytest.mark.parametrize(
    "piece", [b"x" * 65_536, b'data: {"a":"' + b"\\" * 65_000, b"data: \r", b'{"a":[', b"\n" * 9999]
)
def test_endless_nonsense_keeps_memory_bounded(name, piece):
    meter = DIALECTS[name].meter(route(name), DIALECTS[name].read(route(name), Request(b"POST", b"/", (), b"")), 200,
                                 b"text/event-stream")  # fmt: skip
    for _ in range(24_000_000 // len(piece) if len(piece) > 5000 else 20_000):
        meter.feed(piece)
        held = len(meter._cutter._rest) + meter._size
        assert held <= 2 * 1024 * 1024 + 2 * 65_536
    check(meter.end())
