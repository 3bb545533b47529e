"""Reloads that find nobody to take them over; see tests/e2e/test_supervisor.py for a supervisor that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.load import Loaded, load_with_source
from gateway.journal.read import JournalReader
from gateway.journal.record import EventRecord
from gateway.process.sockets import close_all
from gateway.supervisor import Supervisor


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    file = tmp_path / "tollgate.yaml"
    file.write_text(f"{{listen: '127.0.0.1:0', admin: '127.0.0.1:0', workers: 1, state: {tmp_path / 'state'}}}")

    def load() -> Loaded:
        return load_with_source(file, os.environ, {})

    found = Supervisor(load(), load)
    yield found
    close_all([*found._sockets, found._admin])
    found._upkeep.close()
    found._state.close()


def reloads(supervisor: Supervisor) -> int:
    reader, count = JournalReader(supervisor._state.journal), 0
    while batch := reader.read():
        count += sum(isinstance(record, EventRecord) and record.kind == "reload" for _, record in batch)
    reader.close()
    return count


async def test_a_reload_while_all_processes_are_dead_is_for_those_that_come(supervisor: Supervisor) -> None:
    before = supervisor._first(supervisor._recorder)[0].generation  # type: ignore[union-attr]
    assert await supervisor.reload()
    assert supervisor._first(supervisor._recorder)[0].generation == before + 1  # type: ignore[union-attr]
    assert reloads(supervisor) == 1


async def test_a_reload_while_it_ends_is_none(supervisor: Supervisor) -> None:
    supervisor._stopping.set()
    supervisor._upkeep.close()
    assert not await supervisor.reload()
    assert reloads(supervisor) == 0
