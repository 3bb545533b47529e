from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from gateway.recorder.drops import Drops
from gateway.recorder.export import BATCH_BYTES, QUEUE_BYTES, Exporting


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


def test_content_bounds_a_batch_too() -> None:
    sender, drops = Sender(), Drops()
    made = exporting(sender, drops)
    for name, content in (("a", BATCH_BYTES // 2), ("b", BATCH_BYTES // 2), ("c", 1), ("d", 2 * BATCH_BYTES), ("e", 0)):
        assert made.offer(name, 1, content)
    made.start()
    made.close(30)
    assert sender.batches == [["a", "b"], ["c"], ["d"], ["e"]]
    assert drops.counts() == {}


def test_content_fills_the_queue_and_leaves_it_with_its_item() -> None:
    sent = threading.Event()
    sender, drops = Sender(), Drops()

    def send(items: Sequence[str]) -> int:
        sender(items)
        sent.set()
        return 0

    made = Exporting("traces", send, sender.abort, drops, limit=10, batch=4, interval=1000.0)
    assert made.offer("a", 1, QUEUE_BYTES)
    assert not made.offer("b", 1, 1)
    assert made.offer("c", 1)
    made.start()
    assert sent.wait(30)  # at once: it is more than a batch
    assert made.offer("d", 1, QUEUE_BYTES)
    made.close(30)
    assert sender.batches == [["a"], ["c"], ["d"]]
    assert drops.counts() == {("traces", "queue_full"): 1}
