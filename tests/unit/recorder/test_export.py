from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from gateway.recorder.drops import Drops
from gateway.recorder.export import Exporting


class Sender:
    def __init__(self, failing: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.failing = failing
        self.aborted = False

    def __call__(self, items: Sequence[str]) -> int:
        self.batches.append(list(items))
        return self.failing

    def abort(self) -> None:
        self.aborted = True


def exporting(sender: Sender, drops: Drops, **options: Any) -> Exporting[str]:
    return Exporting("traces", sender, sender.abort, drops, **{"limit": 10, "batch": 4, "interval": 1000.0, **options})


def test_batches_by_weight() -> None:
    sender, drops = Sender(), Drops()
    made = exporting(sender, drops)
    assert [made.offer(name, 3) for name in "abc"] == [True, True, True]
    assert not made.offer("d", 2)
    assert made.offer("e", 1)
    made.start()
    made.close(30)
    assert sender.batches == [["a", "b"], ["c", "e"]]
    assert sender.aborted
    assert drops.counts() == {("traces", "queue_full"): 2}


def test_a_full_batch_goes_at_once_and_room_is_made() -> None:
    sent = threading.Event()

    class Telling(Sender):
        def __call__(self, items: Sequence[str]) -> int:
            super().__call__(items)
            sent.set()
            return 0

    sender, drops = Telling(), Drops()
    made = exporting(sender, drops)
    made.start()
    made.offer("a", 4)
    assert sent.wait(30)  # not after the interval of a thousand seconds
    assert made.offer("b", 10)
    made.close(30)
    assert sender.batches == [["a"], ["b"]]


def test_what_failed_is_counted_but_never_more_than_was_sent() -> None:
    drops = Drops()
    made = exporting(Sender(failing=99), drops)
    made.offer("a", 3)
    made.start()
    made.close(30)
    assert drops.counts() == {("traces", "export_failed"): 3}


def test_closed_before_it_was_started() -> None:
    sender, drops = Sender(), Drops()
    made = exporting(sender, drops)
    made.offer("a", 3)
    made.close(0)
    assert drops.counts() == {("traces", "shutdown"): 3}


def test_idle_work_may_offer_more() -> None:
    sender = Sender()
    more = ["late"]

    def idle() -> None:
        while more:
            made.offer(more.pop(), 1)

    made = exporting(sender, Drops(), idle=idle)
    made.start()
    made.close(30)
    assert sender.batches == [["late"]]
