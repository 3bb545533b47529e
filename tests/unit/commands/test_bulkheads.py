"""`tollgate bulkheads list`, without a gateway and with one that answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import cli
from gateway.commands import bulkheads

SHARES = [
    {"worker": 0, "in_flight": 5, "waiting": 3, "limit": 5},
    {"worker": 1, "in_flight": 1, "waiting": 0, "limit": 5},
]
TOOLS = {
    **{"name": "tools", "each": None, "in_flight": 6, "waiting": 3, "limit": 10, "max": 10, "queue": 40},
    **{"wait_seconds": 5.0, "adaptive": False, "refused": {"bulkhead_full": 2, "queue_timeout": 1}, "workers": SHARES},
}
REST = {
    **TOOLS,
    **{"name": "rest", "each": "model", "in_flight": 0, "waiting": 0, "limit": 1, "adaptive": True, "refused": {}},
    "workers": SHARES[:1],
}


class Admin:
    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        assert (method, path, body) == ("GET", "/api/bulkheads", None)
        return self.found


def test_only_a_gateway_knows(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bulkheads", "list", *options]) == 1
    assert "no gateway" in capsys.readouterr().err


def test_how_full_they_are(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {"bulkheads": [TOOLS, REST], "overload_level": 2}
    monkeypatch.setattr(bulkheads, "admin_of", lambda config: Admin(found))
    assert cli.main(["bulkheads", "list", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a worker has too much to do: batch and interactive calls are refused",
        "tools: 6 of 10 places, 3 waiting",
        "  refused: 2 bulkhead_full, 1 queue_timeout",
        "  worker 0: 5 of 5, 3 waiting",
        "  worker 1: 1 of 5, 0 waiting",
        "rest, one for each model: 0 of 1 place (adaptive, at most 10), 0 waiting",
    ]
    assert cli.main(["bulkheads", "list", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_without_pools_it_says_so(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulkheads, "admin_of", lambda config: Admin({"bulkheads": [], "overload_level": 0}))
    assert cli.main(["bulkheads", "list", *options]) == 0
    assert capsys.readouterr().out == "no pools are configured\n"
