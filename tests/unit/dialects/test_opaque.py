"""Embeddings, and what no dialect reads."""

from __future__ import annotations

import json

import pytest

from gateway.call import Request, Route, Usage, UsageSource
from gateway.dialects.opaque import Opaque
from gateway.dialects.registry import DIALECTS
from gateway.errors import Unauthorized


def test_every_dialect_is_under_its_name():
    assert set(DIALECTS) == {
        "openai_chat", "openai_completions", "openai_responses", "openai_embeddings", "anthropic", "gemini",
        "bedrock_converse", "bedrock_invoke", "cohere", "ollama", "opaque",
    }  # fmt: skip
    assert all(dialect.name == name for name, dialect in DIALECTS.items())


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_only_chat_is_injected(name, talk):
    dialect = DIALECTS[name]
    body = b'{"model":"m","stream":true}'
    found = dialect.inject_usage(talk(name).route, talk(name).read(body), body)
    assert (found is not None) is (name in {"openai_chat", "openai_completions"})
    assert dialect.rejects_injection(400, b"unknown field stream_options") is (found is not None)


@pytest.mark.parametrize("name", sorted(set(DIALECTS) - {"openai_chat", "openai_completions"}))
def test_nothing_is_stripped_where_nothing_is_injected(name):
    stripper = DIALECTS[name].stripper()
    assert (
        stripper.feed(b'data: {"choices":[],"usage":{}}\n\n') + stripper.end() == b'data: {"choices":[],"usage":{}}\n\n'
    )


def test_embeddings(talk):
    embeddings = talk("openai_embeddings")
    asked = embeddings.read({"model": "e", "input": [[1, 2], [3]], "encoding_format": "base64"})
    assert (asked.model, asked.params) == ("e", {"encoding_formats": ["base64"]})
    answer = embeddings.answer({"model": "e-1", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert (answer.model, answer.usage, answer.usage_source) == ("e-1", Usage(8), UsageSource.PROVIDER)


def test_usage_behind_huge_embeddings(talk):
    data = [{"embedding": "A" * 90_000} for _ in range(100)]
    answer = talk("openai_embeddings").answer({"data": data, "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert answer.usage == Usage(8)


def test_opaque_reads_errors_only(talk):
    opaque = talk("opaque", operation="")
    assert opaque.read(b"\x00\x01 no JSON at all").fields == {}
    answer = opaque.answer({"usage": {"prompt_tokens": 8}, "error": {"type": "t"}})
    assert (answer.usage, answer.error_type, answer.complete) == (None, "", True)
    assert opaque.answer({"error": {"type": "t", "message": "m"}}, status=500).error_type == "t"
    assert opaque.stream({"error": {"type": "t"}}).end().complete


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_uploads_are_nobodys_to_judge(name):
    """A path without a known meaning may carry anything."""
    path = b"/upload/v1beta/files"
    body = b'--boundary\r\ncontent-disposition: form-data\r\n\r\n{"a":1,"a":2}\xff'
    asked = DIALECTS[name].read(Route("other", name, "", "up", path), Request(b"POST", path, (), body))
    assert (asked.model, asked.fields) == ("", {})


def test_opaque_keeps_little(talk):
    meter = talk("opaque", operation="").meter(status=500)
    for _ in range(100):
        meter.feed(b"x" * 65_536)
    assert len(meter._body) <= 2 * 65_536
    assert meter.end().error_type == ""


@pytest.mark.parametrize(
    ("words", "path"),
    [("openai", ("error", "code")), ("anthropic", ("error", "details")), ("gemini", ("error", "status"))],
)
def test_opaque_words(words, path):
    value = json.loads(Opaque(words).refusal(Unauthorized("no"), "r", stream=False).body)
    for key in path:
        value = value[key]
    assert value


def test_sockets_nobody_reads(talk):
    tap = DIALECTS["opaque"].tap(b"")
    tap.feed(True, b"\x81\x05hello")
    assert tap.end().usage is None
