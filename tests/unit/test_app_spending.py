"""What a worker tells of the store of budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import TICK_SECONDS
from gateway.app_spending import Purse
from gateway.config.schema import Config
from gateway.journal.inflight import InFlight
from gateway.spend import Charge
from gateway.stores.local_table import LocalTable


class Journal:
    def __init__(self) -> None:
        self.gauges = InFlight.anonymous("w0", b"12345678").gauges
        self.events: list[tuple[str, dict[str, Any]]] = []

    def append_event(self, kind: str, **detail: str | int | float | bool) -> bool:
        self.events.append((kind, detail))
        return True


@pytest.fixture
async def purse(tmp_path: Path) -> AsyncIterator[Purse]:
    purse = Purse(Config(state=str(tmp_path)), 0, LocalTable(100), print)
    yield purse
    await purse.close()


def test_what_is_decided_elsewhere_is_looked_for_often_enough_to_hold_within_a_second() -> None:
    """End-to-end tests of kills show it once of a few times, for a busy machine's sake; the period is held here."""
    assert 2 * TICK_SECONDS <= 0.5


async def test_a_fault_of_the_store_is_told_until_it_works_again(purse: Purse, tmp_path: Path) -> None:
    journal = Journal()
    purse.tell(journal)
    assert journal.gauges.get("budget_store_available") == 1
    (tmp_path / "budgets.sqlite").write_bytes(b"no database, but long enough to be looked at" * 100)
    purse.store.settle("op", Charge())
    purse.store.tick()
    for _ in range(200):
        await asyncio.sleep(0.005)
        purse.tell(journal)
        if not journal.gauges.get("budget_store_available"):
            break
    assert journal.gauges.get("budget_store_available") == 0
    assert journal.gauges.get("budget_settles_waiting") == 1


async def test_what_is_counted_is_told_once(purse: Purse, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal()
    purse.tell(journal)
    assert journal.events == []
    monkeypatch.setattr(purse.store, "expired", 3)
    purse.tell(journal)
    purse.tell(journal)
    monkeypatch.setattr(purse.store, "expired", 5)
    monkeypatch.setattr(purse.store, "lost", 1)
    purse.tell(journal)
    assert journal.events == [
        ("holds_expired", {"count": 3}),
        ("holds_expired", {"count": 2}),
        ("settles_lost", {"count": 1}),
    ]
