"""Nobody is refused for longer than it must: a budget that fits lets everything through that waits for its turn."""

from __future__ import annotations

import pytest

from tests.bench import goodput


@pytest.mark.parametrize("share", [1.05, 0.5])
async def test_a_queue_refuses_next_to_nothing_that_an_oracle_would_let_in(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goodput, "SHARES", (share,))
    async with goodput.Knowing(1, delay=0.02, faults=0) as judge:
        (row,) = await goodput.measure("queue", judge, count=120, at_once=15, seeds=1)
    assert row.spent <= 1
    if share > 1:
        assert (row.missed, row.let_in) == (0, 120)
    else:
        assert row.missed <= row.oracle * 0.3
        assert row.let_in >= row.oracle * 0.85  # others in the place of those it missed
    assert row.short == 0
