"""What caches give back when memory is short, in virtual numbers: memory is what the caches hold, and all else."""

from __future__ import annotations

import pytest

from gateway.policy.bulkhead import Priority
from gateway.policy.overload import Marks, Overload
from gateway.policy.relief import PAUSE, Relief, shared

MB = 1_000_000
MARK = 100 * MB
FULL = 64 * MB


class Worker:
    """Looked at four times a second."""

    def __init__(self, others: int, held: int) -> None:
        self.relief, self.overload = Relief(), Overload(Marks(memory=MARK))
        self.others, self.held = others, held
        self.now = 0
        self.dropped = 0

    def tick(self) -> None:
        self.now += PAUSE // 4
        room = self.relief.look(self.others + self.held, MARK, self.held, FULL, self.now)
        if room is not None and room < self.held:
            self.dropped += self.held - room
            self.held = room
        self.overload.look(0, self.others + self.held, self.now)

    def seconds(self, count: float) -> Worker:
        for _ in range(int(count * 4)):
            self.tick()
        return self


def test_below_the_mark_nothing_is_asked_for() -> None:
    worker = Worker(others=30 * MB, held=59 * MB).seconds(60)
    assert (worker.dropped, worker.relief.room, worker.overload.level) == (0, None, 0)


def test_near_the_mark_half_goes_or_as_much_as_is_needed() -> None:
    assert Worker(others=40 * MB, held=50 * MB).seconds(0.25).held == 25 * MB
    assert Worker(others=70 * MB, held=22 * MB).seconds(0.25).held == 10 * MB  # down to eight tenths
    worker = Worker(others=91 * MB, held=8 * MB).seconds(0.5)
    assert worker.held == 0
    assert worker.overload.level == 0


def test_what_was_given_back_may_show_first() -> None:
    worker = Worker(others=0, held=0)
    asked = []
    for _ in range(9):  # nothing shows at all
        worker.now += PAUSE // 4
        asked.append(worker.relief.look(95 * MB, MARK, 40 * MB, FULL, worker.now))
    assert asked == [20 * MB] * 9


def test_at_the_mark_all_goes_and_no_call_was_sent_away() -> None:
    worker = Worker(others=70 * MB, held=60 * MB)
    worker.tick()
    assert (worker.held, worker.dropped) == (0, 60 * MB)
    assert worker.overload.level == 0
    assert not worker.overload.sheds(Priority.BATCH, again=True)


def test_only_what_is_too_much_without_them_is_held_against_calls() -> None:
    worker = Worker(others=104 * MB, held=60 * MB)
    worker.tick()
    assert (worker.held, worker.overload.level, worker.overload.cause) == (0, 1, "memory")


def test_a_cache_that_fills_again_does_not_go_up_and_down() -> None:
    worker = Worker(others=75 * MB, held=20 * MB).seconds(0.25)
    assert worker.held == 5 * MB
    worker.others = 70 * MB
    rooms = []
    for _ in range(40):
        worker.seconds(1)
        room = worker.relief.room
        worker.held = FULL if room is None else min(FULL, room)  # it takes whatever it may have
        rooms.append(worker.held)
    assert max(rooms) < 20 * MB  # it stays where there is room
    assert worker.dropped <= 15 * MB + 2 * FULL // 16
    assert worker.overload.level == 0


def test_it_grows_to_what_is_configured_when_there_is_room() -> None:
    worker = Worker(others=90 * MB, held=20 * MB).seconds(1)
    assert worker.relief.room == 0
    worker.others = 10 * MB
    assert worker.seconds(4).relief.room == 4 * FULL // 16
    assert worker.seconds(12).relief.room is None


def test_without_a_mark_nothing_is_bounded_any_more() -> None:
    relief = Relief()
    assert relief.look(MARK, MARK, MB, FULL, 0) == 0
    assert relief.look(0, 0, MB, FULL, 1) is None


@pytest.mark.parametrize(
    ("room", "last", "rooms"), [(None, 5, (None, None)), (9, 5, (4, None)), (5, 5, (0, None)), (3, 5, (0, 3))]
)
def test_what_is_given_up_last_goes_when_nothing_else_is_left(
    room: int | None, last: int, rooms: tuple[int | None, int | None]
) -> None:
    assert shared(room, last) == rooms
