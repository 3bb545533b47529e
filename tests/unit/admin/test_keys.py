"""Virtual keys through the API."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.keys import Ring
from gateway.stores.secret_file import shared_secret

Gate = Any  # of conftest.py
WHOLE = {
    "name": "ci",
    "team": "core",
    "models": ["gpt-*"],
    "upstreams": ["openai"],
    "tools": [],
    "operations": ["chat"],
    "expires_in_seconds": 60,
    "budgets": [{"usd": 12.5, "per": "day"}, {"tokens": 1000, "per": "hour", "rolling": True}],
    "rpm": 60,
    "tpm": 1000,
    "concurrency": 3,
    "burst": 5,
    "may_limit_runs": False,
    "metadata": {"owner": "ann"},
    "by": "ann",
}


async def test_a_key_is_made_shown_and_listed(gate: Gate) -> None:
    made = await gate.post("/api/keys", WHOLE)
    secret = made.pop("secret")
    assert secret.startswith(made["prefix"])
    assert made["state"] == "active"
    assert made["created_at"] == "2026-09-21T14:13:25.000000Z"
    assert made["expires_at"] == "2026-09-21T14:14:25.000000Z"
    for name in ("name", "team", "models", "upstreams", "tools", "operations", "rpm", "tpm", "concurrency", "burst"):
        assert made[name] == WHOLE[name], name
    assert made["budgets"] == [
        {"usd": 12.5, "tokens": None, "per": "day", "rolling": False},
        {"usd": None, "tokens": 1000, "per": "hour", "rolling": True},
    ]
    assert await gate.get("/api/keys/ci") == await gate.get(f"/api/keys/{made['id']}") == made
    assert await gate.get("/api/keys") == {"keys": [made]}
    assert gate.keys.changes()[0].who == "ann"


async def test_the_secret_is_in_one_answer_and_in_nothing_else(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first = (await gate.post("/api/keys", {"name": "ci"}))["secret"]
    second = (await gate.send("POST", "/api/keys/ci/rotate", 200, json={"overlap_seconds": 60}))["secret"]
    assert first != second
    pepper = Path(gate.keys.path).with_name("keys.pepper")
    held = Ring(shared_secret(pepper))
    held.take(gate.keys.listed())
    assert held.find(first.encode()) is not None
    assert held.find(second.encode()) is not None
    seen = [str(await gate.get(path)) for path in ("/api/keys", "/api/keys/ci", "/openapi.json", "/api/controls")]
    seen += [caplog.text, str(gate.events), str(gate.journal), repr(gate.keys.listed()), str(gate.keys.changes())]
    for text in seen:
        assert first[12:] not in text
        assert second[12:] not in text
    assert "digest" not in str(await gate.get("/api/keys"))


async def test_a_disabled_key_stays_disabled(gate: Gate) -> None:
    await gate.post("/api/keys", {"name": "ci"})
    disabled = await gate.send("POST", "/api/keys/ci/disable", 200, json={"reason": "left", "by": "ann"})
    assert disabled["state"] == "disabled"
    assert await gate.send("POST", "/api/keys/ci/disable", 200, json={}) == disabled
    problem = await gate.send("POST", "/api/keys/ci/rotate", 409, json={})
    assert problem["code"] == "key_refused"
    assert gate.keys.changes()[0].reason == "left"


async def test_a_key_made_under_another_stays_within_it(gate: Gate) -> None:
    lead = await gate.post("/api/keys", {"name": "lead", "team": "core", "models": ["gpt-*"]})
    problem = await gate.send("POST", "/api/keys", 409, json={"parent": "lead"})
    assert (problem["code"], problem["parameter"]) == ("key_refused", "models")
    child = await gate.post("/api/keys", {"parent": "lead", "models": ["gpt-4o"]})
    assert (child["parent"], child["team"]) == (lead["id"], "core")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "parameter"),
    [
        ("POST", "/api/keys", {"nome": "x"}, 400, "bad_body", "body"),
        ("POST", "/api/keys", {"rpm": 0}, 400, "bad_body", "body"),
        ("POST", "/api/keys", {"name": "a b"}, 409, "key_refused", "name"),
        ("POST", "/api/keys", {"operations": ["chta"]}, 409, "key_refused", "operations"),
        ("POST", "/api/keys", {"budgets": [{"per": "day"}]}, 409, "key_refused", "budgets"),
        ("POST", "/api/keys", {"parent": "nobody"}, 409, "key_refused", "parent"),
        ("POST", "/api/keys?x=1", {}, 400, "bad_parameter", "x"),
        ("GET", "/api/keys/nobody", None, 404, "key_not_found", None),
        ("POST", "/api/keys/nobody/rotate", {}, 404, "key_not_found", None),
        ("POST", "/api/keys/nobody/disable", {}, 404, "key_not_found", None),
        ("DELETE", "/api/keys/nobody", None, 405, "method_not_allowed", None),
    ],
)
async def test_errors_are_problems(
    gate: Gate, method: str, path: str, body: Any, status: int, code: str, parameter: str | None
) -> None:
    problem = await gate.send(method, path, status, json=body)
    assert (problem["code"], problem.get("parameter")) == (code, parameter)
    assert gate.keys.listed() == []


async def test_a_name_is_given_once(gate: Gate) -> None:
    await gate.post("/api/keys", {"name": "ci"})
    assert (await gate.send("POST", "/api/keys", 409, json={"name": "ci"}))["parameter"] == "name"


async def test_a_page_of_another_origin_cannot_make_a_key(gate: Gate) -> None:
    problem = await gate.send("POST", "/api/keys", 415, data="{}", headers={"Content-Type": "text/plain"})
    assert problem["code"] == "unsupported_media_type"


async def test_keys_that_cannot_be_read_are_a_passing_trouble(gate: Gate) -> None:
    gate.keys.path.write_bytes(b"no database" * 1000)
    problem = await gate.get("/api/keys", 503)
    assert problem["code"] == "keys_unavailable"


async def test_the_token_guards_keys_too(gate: Gate) -> None:
    gate.token = "0123456789abcdef"
    for method, path in (("GET", "/api/keys"), ("POST", "/api/keys"), ("POST", "/api/keys/x/rotate")):
        assert (await gate.send(method, path, 401, json={}))["code"] == "unauthorized"
    assert gate.keys.listed() == []
