from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.token_bound import AUDIO, GENERATION, HOUR, LINKED, TOKENS, Pieces, piece_bound, text_bound

GOLDEN = Path(__file__).parents[2] / "golden" / "estimates" / "vocabularies.json"
TEXTS = json.loads(GOLDEN.read_text())["texts"]
GPT, CLAUDE = "gpt-4o", "claude-sonnet-4-5"


def bound(value: Any, model: str = GPT) -> int:
    return piece_bound(msgspec.json.encode(value), model) & TOKENS


@pytest.mark.parametrize("sample", TEXTS, ids=lambda sample: sample["name"])
def test_no_vocabulary_makes_more_tokens_of_a_text(sample: dict[str, Any]):
    text = sample["text"].encode()
    assert max(sample["tokens"].values()) <= text_bound(text) <= len(text) + 1
    for model in (GPT, CLAUDE, "gemini-2.5-pro", "deepseek-chat", "no-such-model"):
        assert max(sample["tokens"].values()) <= bound(sample["text"], model)


def test_of_text_as_people_write_it_the_bound_is_near():
    named = {sample["name"]: sample for sample in TEXTS}
    for name in ("prose", "python", "german", "log"):
        most = max(named[name]["tokens"].values())
        assert text_bound(named[name]["text"].encode()) <= 3.3 * most, name


@given(st.text(max_size=300))
def test_never_more_than_a_token_a_byte_and_never_less_than_half(text: str):
    data = text.encode()
    assert len(data) // 2 <= text_bound(data) <= len(data) + 1


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_more_bytes_are_never_fewer_tokens_by_much(left: bytes, right: bytes):
    """Joining may dilute what is dense, but never below half of what the parts are."""
    assert text_bound(left + right) * 2 >= text_bound(left) + text_bound(right) - 2


@pytest.mark.parametrize(
    "value",
    [
        {"role": "user", "content": "x" * 900},
        {"role": "user", "content": [{"type": "text", "text": "x" * 900}]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x" * 900: 1}},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": ["x" * 900]}},
        {"type": "x" * 900, "text": ""},
        {"role": "tool", "tool_call_id": "x" * 900, "content": ""},
        {"type": "document", "title": "x" * 900, "source": {"type": "text", "data": "hi"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 900}},
        {"type": "image", "alt": "x" * 900, "source": {"type": "base64", "data": "iVBORw0K"}},
        {"type": "file", "file": {"filename": "x" * 900, "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "unknown", "anything": {"deep": [{"er": "x" * 900}]}},
        [[{"content": "x" * 900}]],
        "x" * 900,
    ],
)
def test_text_counts_wherever_it_stands(value: Any):
    assert bound(value) >= 600


def test_labels_cost_little_and_base64_nothing_of_its_own():
    assert bound({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}) < 25
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 200_000}}
    assert bound(picture, CLAUDE) < 10_000


def is_linked(value: Any, model: str = GPT) -> bool:
    return piece_bound(msgspec.json.encode(value), model) >= LINKED


def test_a_file_that_is_not_in_the_request_may_be_of_any_size():
    assert is_linked({"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}}, CLAUDE)
    assert is_linked({"type": "document", "source": {"type": "file", "file_id": "file_1"}}, CLAUDE)
    assert is_linked({"type": "input_file", "file_id": "file_1"})
    assert is_linked({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://a/b"}}, "gemini-2.5-pro")
    assert bound({"type": "image_url", "image_url": {"url": "https://a/b.png"}}) >= 1500
    assert not is_linked({"type": "image_url", "image_url": {"url": "https://a/b.png"}})


def test_ciphertext_counts_by_its_length():
    thought = {"type": "reasoning", "encrypted_content": "x" * 8000, "summary": []}
    assert 2000 <= bound(thought) <= 2100
    assert 2000 <= bound({"type": "thinking", "thinking": "", "signature": "x" * 8000}, CLAUDE) <= 2100


def test_flags():
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    hour = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    raw = [msgspec.json.encode(value) for value in (sound, hour, {"type": "text", "text": "a"})]
    assert piece_bound(raw[0], GPT) & AUDIO
    assert piece_bound(raw[1], GPT) & HOUR
    assert piece_bound(raw[2], GPT) < AUDIO
    both = Pieces().total(raw, GPT)
    assert both >= HOUR
    assert both & (HOUR - 1) >= AUDIO
    assert both & TOKENS == sum(piece_bound(one, GPT) & TOKENS for one in raw)


def test_no_json_is_text():
    assert piece_bound(b"\xff{not json", GPT) >= len(b"\xff{not json") // 2


@given(st.lists(st.binary(max_size=40), max_size=30), st.sampled_from([GPT, CLAUDE]))
def test_what_is_remembered_changes_nothing(pieces: list[bytes], model: str):
    remembered = Pieces()
    first = remembered.total(pieces, model)
    assert remembered.total(pieces, model) == first == sum(piece_bound(piece, model) for piece in pieces)


def test_memory_is_bounded_and_one_model_is_not_another():
    remembered = Pieces()
    for n in range(3 * GENERATION):
        remembered.total([b'"%d"' % n], GPT)
    assert len(remembered.young) + len(remembered.old) <= 2 * GENERATION
    text = [msgspec.json.encode("word " * 100)]
    assert remembered.total(text, CLAUDE) > remembered.total(text, GPT)
