"""The worst case of calls to Bedrock: limits, tools, media, and what is only linked to, as Converse writes them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Call, Request, Trace, Who
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.policy.ceiling import Ceiling, Worst
from gateway.policy.pricing import PriceTable
from gateway.policy.token_bound import HOUR, TOKENS, piece_bound

PRICES = PriceTable(next((Path(__file__).parents[3] / "gateway" / "prices").glob("*.msgpack")).read_bytes())
CEILING = Ceiling(PRICES)
AT = 1_795_780_800.0
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    + (640).to_bytes(4, "big")
    + (480).to_bytes(4, "big")
    + b"\x08\2\0\0\0"
    + b"x" * 3000
).decode()


def worst(model: str = SONNET, verb: str = "converse", **body: Any) -> Worst:
    route = Table({"bedrock": "bedrock"}).resolve(b"POST", f"/model/{model}/{verb}".encode(), "")
    request = Request(b"POST", route.path, (), json.dumps(body).encode())
    asked = DIALECTS[route.dialect].read(route, request)
    return CEILING.worst(Call("c", request, route, asked, Who(), Trace(), 0, 0), "aws", AT)


def saying(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("body", "out", "basis"),
    [
        ({"inferenceConfig": {"maxTokens": 70}}, 70, "client"),
        ({"max_tokens": 70}, 128_000, "model"),  # nothing that Converse reads
        ({"inferenceConfig": {"maxTokens": "many"}}, 128_000, "model"),
        ({}, 128_000, "model"),
    ],
)
def test_what_limits_the_output(body: dict[str, Any], out: int, basis: str):
    found = worst(**saying({"text": "hi"}), **body)
    assert (found.tokens_out, found.basis) == (out, basis)
    assert found.nano_usd is not None


def test_counting_tokens_is_free():
    assert worst(verb="count-tokens", input={"converse": saying({"text": "hi"})}).nano_usd == 0


def test_tools_are_the_clients_but_for_those_of_the_system():
    text = saying({"text": "hi"})
    spec = {"toolSpec": {"name": "look", "description": "look " * 400, "inputSchema": {"json": {"type": "object"}}}}
    plain = worst(**text).tokens_in
    own = worst(**text, toolConfig={"tools": [spec, {"cachePoint": {"type": "default"}}]}).tokens_in
    assert 400 < own - plain < 3_500  # once, not twice
    hosted = worst(**text, toolConfig={"tools": [{"systemTool": {"name": "nova_grounding"}}]}).tokens_in
    assert hosted > plain + 50_000


def test_a_picture_counts_by_its_size_and_one_that_is_linked_may_fill_the_context():
    text = worst(**saying({"text": "hi"})).tokens_in
    seen = worst(**saying({"text": "hi"}, {"image": {"format": "png", "source": {"bytes": PIXEL}}})).tokens_in
    assert 400 < seen - text < 1_500
    source = {"s3Location": {"uri": "s3://b/k"}}
    assert worst(**saying({"image": {"format": "png", "source": source}})).tokens_in > text + 3_000  # of any size
    for kind, form in (("document", "pdf"), ("video", "mp4")):
        assert worst(**saying({kind: {"format": form, "source": source}})).tokens_in > 190_000
    written = {"document": {"format": "txt", "name": "n", "source": {"text": "word " * 1000}}}
    assert 1_000 < worst(**saying(written)).tokens_in - text < 5_000
    schema = {"image": {"type": "object", "properties": {"source": {"type": "string"}}}}
    assert piece_bound(json.dumps(schema).encode(), SONNET) & TOKENS < 200


def test_a_cache_point_of_an_hour_is_held_at_its_price():
    hour = b'{"role":"user","content":[{"text":"a"},{"cachePoint":{"type":"default","ttl":"1h"}}]}'
    assert piece_bound(hour, SONNET) & HOUR
    assert not piece_bound(hour.replace(b"1h", b"5m"), SONNET) & HOUR


def test_several_answers_of_one_call_count():
    one = worst("cohere.command-text-v14", "invoke", prompt="hi", max_tokens=10)
    three = worst("cohere.command-text-v14", "invoke", prompt="hi", max_tokens=10, num_generations=3)
    assert (one.tokens_out, three.tokens_out) == (10, 30)
