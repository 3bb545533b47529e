"""A worker's connection to the matcher, and the desk's: what comes over, and what never does harm."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ClientGone
from gateway.frames import Frames
from gateway.matcher.server import Server
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, Inquiry, Lesson, Match, MatcherState, Noted, Topic
from gateway.stores import matcher_link
from gateway.stores.matcher_desk import MatcherAway, MatcherDesk
from gateway.stores.matcher_link import MatcherLink
from gateway.stores.matcher_wire import LIMIT, Ask, Told, from_matcher, pack, to_matcher

TOPIC = Topic("t/a/m", "t", 0.01, 0.04, 10**9, True)
INQUIRY = Inquiry("call", b"p" * 32, "how \u20ac tall", TOPIC)
LESSON = Lesson(INQUIRY, 5, b"k" * 32, "answer", 1, 2**60)


class Down:
    """A client."""

    def __init__(self) -> None:
        self.gone = False
        self.on_gone: Any = None


class Mind:
    def __init__(self) -> None:
        self.asked: list[Inquiry] = []
        self.lessons: list[Lesson] = []
        self.said: list[Any] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.fault: Exception | None = None

    async def ask(self, inquiry: Inquiry, until: int) -> Match:
        self.asked.append(inquiry)
        await self.slow.wait()
        if self.fault is not None:
            raise self.fault
        return Match(len(self.asked), b"k" * 32, 0.5, True, "why")

    async def learn(self, lesson: Lesson) -> None:
        if self.fault is not None:
            raise self.fault
        self.lessons.append(lesson)

    def say(self, feedback: Feedback) -> Noted:
        self.said.append(feedback)
        return Noted(3, ("s",))

    def forget(self, chosen: Chosen) -> Noted:
        self.said.append(chosen)
        return Noted(4)


class Place:
    """A matcher's server and a worker's link to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mind = Mind()
        self.server = Server(self.mind, lambda: MatcherState("e", "", 1, 2, 3, ()), time.monotonic_ns)
        self.link = MatcherLink(asyncio.get_running_loop(), path, 5.0)
        self.runner: Any = None

    async def serve(self) -> None:
        await self.server.listen(self.path)
        self.runner = asyncio.create_task(self.server.run())

    async def connect(self) -> None:
        self.link.tick()
        await until(lambda: self.link.connected)


async def until(good: Any) -> None:
    for _ in range(2000):
        if good():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("still not so")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    deep = tmp_path / ("deep" * 20) / ("er" * 30)
    deep.mkdir(parents=True)
    found = Place(deep / "matcher.sock")
    yield found
    found.link.close()
    found.server.close()
    if found.runner is not None:
        found.runner.cancel()


async def test_questions_and_lessons_come_over_whatever_their_place(place: Place) -> None:
    await place.serve()
    await place.connect()
    assert stat.S_IMODE(os.stat(place.path).st_mode) == 0o600
    found = await asyncio.gather(*[place.link.ask(INQUIRY, Down()) for _ in range(20)])
    assert sorted(match.ticket for match in found) == list(range(1, 21))
    assert found[0] == Match(found[0].ticket, b"k" * 32, 0.5, True, "why")
    assert place.mind.asked[0] == INQUIRY
    place.link.teach(LESSON)
    await until(lambda: place.mind.lessons)
    assert place.mind.lessons == [LESSON]


async def test_a_matcher_that_is_not_there_is_a_miss_at_once(place: Place) -> None:
    place.link.tick()
    assert (await place.link.ask(INQUIRY, Down())).why == "down"
    place.link.teach(LESSON)
    assert place.link.dropped == 1


async def test_it_is_found_again_when_it_comes_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher_link, "AGAIN", 0.0)
    await place.serve()
    await place.connect()
    place.mind.slow.clear()
    waiting = asyncio.create_task(place.link.ask(INQUIRY, Down()))
    await until(lambda: place.mind.asked)
    place.server.close()
    assert (await waiting).why == "down", "who waits is told at once"
    assert not place.link.connected
    await place.serve()
    place.mind.slow.set()
    await place.connect()
    assert (await place.link.ask(INQUIRY, Down())).key


async def test_nobody_waits_longer_than_the_patience_and_a_matcher_that_hangs_is_left_alone(place: Place) -> None:
    await place.serve()
    await place.connect()
    place.link.patience = 0.001
    place.mind.slow.clear()
    for _ in range(matcher_link.LATE):
        assert (await place.link.ask(INQUIRY, Down())).why == "late"
    asked = len(place.mind.asked)
    assert (await place.link.ask(INQUIRY, Down())).why == "down"
    assert len(place.mind.asked) == asked
    place.mind.slow.set()
    place.link._resting = 0.0
    place.link.patience = 5.0
    assert (await place.link.ask(INQUIRY, Down())).key, "answers that came too late are nobody's"


async def test_too_many_questions_are_misses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher_link, "WAITING", 2)
    await place.serve()
    await place.connect()
    place.mind.slow.clear()
    waiting = [asyncio.create_task(place.link.ask(INQUIRY, Down())) for _ in range(2)]
    await until(lambda: len(place.mind.asked) == 2)
    assert (await place.link.ask(INQUIRY, Down())).why == "busy"
    place.mind.slow.set()
    assert all(match.key for match in await asyncio.gather(*waiting))


async def test_a_client_that_leaves_ends_the_wait(place: Place) -> None:
    await place.serve()
    await place.connect()
    place.mind.slow.clear()
    down = Down()
    waiting = asyncio.create_task(place.link.ask(INQUIRY, down))
    await until(lambda: place.mind.asked)
    down.on_gone(ClientGone())
    with pytest.raises(ClientGone):
        await waiting
    assert down.on_gone is None
    place.mind.slow.set()
    assert (await place.link.ask(INQUIRY, Down())).ticket == 2


async def test_a_bug_of_the_matcher_costs_an_answer_and_nothing_else(place: Place) -> None:
    await place.serve()
    await place.connect()
    place.link.patience = 0.05
    place.mind.fault = RuntimeError("bug")
    assert (await place.link.ask(INQUIRY, Down())).why == "late"
    place.link.teach(LESSON)
    await asyncio.sleep(0.02)
    place.mind.fault = None
    place.link.patience = 5.0
    assert (await place.link.ask(INQUIRY, Down())).key
    place.link.teach(LESSON)
    await until(lambda: place.mind.lessons)


async def test_who_talks_nonsense_is_hung_up_on_and_nobody_else(place: Place) -> None:
    await place.serve()
    await place.connect()
    for nonsense in (b"\x05\x00\x00\x00hello", b"\xff\xff\xff\xff", pack(Told(1, Match()))):
        reader, writer = await asyncio.open_unix_connection(sock=place_socket(place.path))
        writer.write(nonsense)
        assert await reader.read() == b""
        writer.close()
    assert (await place.link.ask(INQUIRY, Down())).key


def place_socket(path: Path) -> Any:
    sock = matcher_link.connected(path, None)
    sock.setblocking(False)
    return sock


async def test_people_ask_and_tell_it_from_any_thread(place: Place) -> None:
    await place.serve()
    desk = MatcherDesk(place.path)
    assert await asyncio.to_thread(desk.state) == MatcherState("e", "", 1, 2, 3, ())
    assert await asyncio.to_thread(desk.say, Feedback(False, call="c")) == Noted(3, ("s",))
    assert await asyncio.to_thread(desk.forget, Chosen(tenant="t")) == Noted(4)
    assert place.mind.said == [Feedback(False, call="c"), Chosen(tenant="t")]


async def test_while_it_is_away_people_are_told(place: Place) -> None:
    with pytest.raises(MatcherAway, match="does not answer"):
        MatcherDesk(place.path).state()


async def test_a_stale_socket_is_replaced(place: Place) -> None:
    await place.serve()
    place.server.close()
    place.runner.cancel()
    assert place.path.exists()
    await place.serve()
    await place.connect()
    assert (await place.link.ask(INQUIRY, Down())).key


def test_frames_come_whole_in_pieces_of_any_size() -> None:
    messages = [Ask(n, INQUIRY, n) for n in range(3)]
    data = b"".join(map(pack, messages))
    for size in range(1, len(data) + 1):
        frames = Frames(LIMIT)
        found = [
            to_matcher.decode(one) for at in range(0, len(data), size) for one in frames.feed(data[at : at + size])
        ]
        assert found == messages
    told = Told(1, Match(1, b"k", 0.25, True, "x"))
    assert from_matcher.decode(next(Frames(LIMIT).feed(pack(told)))) == told
