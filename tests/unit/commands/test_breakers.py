"""`tollgate breakers`, without a gateway and with one that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.commands import breakers
from gateway.stores.sqlite_controls import SqliteControls

OPEN = {
    **{"name": "openai", "state": "open", "forced": None, "workers": 2},
    **{"why": "5 failures in a row", "since": "2026-11-27T10:00:00Z", "open_seconds": 5.0},
}
HELD = {
    **{"name": "tools/search", "state": "closed", "forced": "open", "workers": 0},
    **{"why": None, "since": None, "open_seconds": None},
}


def test_without_a_gateway_it_is_written_for_the_next_one(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(options[1]) / "controls.sqlite"
    assert cli.main(["breakers", "open", "openai/gpt-4o", "--reason", "burns", *options]) == 0
    assert "openai/gpt-4o: held open; no gateway" in capsys.readouterr().out
    assert SqliteControls(path).forced == {"openai/gpt-4o": "open"}
    assert cli.main(["breakers", "auto", "openai/gpt-4o", *options]) == 0
    assert SqliteControls(path).forced == {}
    assert cli.main(["breakers", "list", *options]) != 0, "how they stand only a gateway knows"


def test_a_gateway_that_answers_is_asked(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, Any]] = []

    class Admin:
        def ask(self, method: str, path: str, body: Any = None) -> Any:
            asked.append((method, path, body))
            return {"breakers": [OPEN, HELD], "in_force": len(asked) < 3}

    monkeypatch.setattr(breakers, "admin_of", lambda config: Admin())
    assert cli.main(["breakers", "list", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "openai: open in 2 workers since 2026-11-27T10:00:00Z: 5 failures in a row",
        "tools/search: closed, held open by hand",
    ]
    assert cli.main(["breakers", "close", "openai", "--reason", "it is well", *options]) == 0
    assert capsys.readouterr().out == "openai: held closed\n"
    method, path, body = asked[-1]
    assert (method, path, body["name"], body["state"]) == ("POST", "/api/breakers", "openai", "closed")
    assert body["reason"] == "it is well"
    assert cli.main(["breakers", "auto", "openai", *options]) == 0
    assert "not every worker" in capsys.readouterr().out
    assert cli.main(["breakers", "list", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)[1]["name"] == "tools/search"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openai", ""),
        ("openai/gpt-4o", ""),
        ("opnai", '; nothing is named so in the configuration: did you mean "openai"?'),
        ("tools/search", "; nothing is named so in the configuration"),
    ],
)
def test_a_name_that_nothing_has_is_taken_and_said(
    options: list[str], capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert cli.main(["breakers", "open", name, *options]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: held open{said}; no gateway")


def test_none_has_opened() -> None:
    assert breakers.listed([]) == "no breaker has ever opened"
