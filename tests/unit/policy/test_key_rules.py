"""What a key must look like: each rule is broken once, alone."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.key import Key, KeyBudget
from gateway.policy.key_rules import faults


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "-a"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"team": "a/b"}, "team"),
        ({"models": ("",)}, "models"),
        ({"models": (" a",)}, "models"),
        ({"tools": ("a\n",)}, "tools"),
        ({"upstreams": ("a" * 201,)}, "upstreams"),
        ({"tools": tuple(map(str, range(101)))}, "tools"),
        ({"operations": ("chta",)}, "operations"),
        ({"expires_at": 5}, "expires_at"),
        ({"rpm": 0}, "rpm"),
        ({"concurrency": 10**13}, "concurrency"),
        ({"burst": 1}, "burst"),
        ({"budgets": (KeyBudget(),)}, "budgets"),
        ({"budgets": (KeyBudget(usd=0),)}, "budgets"),
        ({"budgets": (KeyBudget(usd=1, tokens=-1),)}, "budgets"),
        ({"budgets": (KeyBudget(usd=1, per="life", rolling=True),)}, "budgets"),
        ({"budgets": (KeyBudget(usd=1), KeyBudget(tokens=1))}, "budgets"),
        ({"metadata": {"a": "b" * 500}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(33)}}, "metadata"),
    ],
)
def test_a_broken_rule_is_the_one_fault(fields: dict[str, Any], field: str) -> None:
    ((named, reason),) = faults(Key(id="", **fields), 5)
    assert named == field
    assert reason


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "ann@work", "team": "core-1", "expires_at": 6, "metadata": {"a": "b"}},
        {"models": (), "upstreams": (), "tools": (), "operations": ()},
        {"operations": ("*", "chat*", "batches", "other")},
        {"rpm": 1, "burst": 5, "tpm": 1, "concurrency": 1},
        {"budgets": (KeyBudget(usd=1, tokens=1), KeyBudget(usd=1, rolling=True), KeyBudget(tokens=1, per="life"))},
    ],
)
def test_what_keeps_the_rules_has_no_fault(fields: dict[str, Any]) -> None:
    assert list(faults(Key(id="", **fields), 5)) == []
