"""Headroom: what answers say of rate limits, how it fills again, and when it is no longer believed."""

from __future__ import annotations

import pytest

from gateway.policy.headroom import LONGEST, STALE, TARGETS, Headroom
from gateway.policy.retry import NANO

NOW = 1_790_000_000 * NANO
LATER = "2026-09-21T14:15:00Z"  # 100 s after NOW


def heard(
    *lines: str, status: int = 200, rooms: Headroom | None = None, now: int = NOW, target: str = "u/m"
) -> Headroom:
    rooms = rooms or Headroom()
    names = {name.encode(): value.encode() for name, _, value in (line.partition(": ") for line in lines)}
    rooms.hear(target, status, names, now)
    return rooms


def limits(left: int, most: int, reset: str, kind: str = "requests") -> tuple[str, str, str]:
    start = "x-ratelimit-"
    return f"{start}remaining-{kind}: {left}", f"{start}limit-{kind}: {most}", f"{start}reset-{kind}: {reset}"


def test_what_nothing_is_known_of_has_all() -> None:
    assert Headroom().room("u/m", 10**9, NOW) == 1.0
    assert heard("date: today").room("u/m", 1, NOW) == 1.0


def test_the_share_that_is_left_fills_evenly_until_its_reset() -> None:
    rooms = heard(*limits(20, 100, "40s"))
    assert rooms.room("u/m", 0, NOW) == pytest.approx(0.2)
    assert rooms.room("u/m", 0, NOW + 20 * NANO) == pytest.approx(0.6)
    assert rooms.room("u/m", 0, NOW + 40 * NANO) == 1.0
    assert rooms.room("u/other", 0, NOW) == 1.0


def test_the_tightest_limit_counts() -> None:
    assert heard(*limits(90, 100, "9s"), *limits(10, 1000, "9s", "tokens")).room("u/m", 0, NOW) == pytest.approx(0.01)


def test_a_call_that_is_larger_than_what_is_left_has_no_room() -> None:
    rooms = heard(*limits(500, 1000, "10s", "tokens"))
    assert rooms.room("u/m", 500, NOW) == 0.5
    assert rooms.room("u/m", 501, NOW) == 0.0
    assert rooms.room("u/m", 501, NOW + NANO) == pytest.approx(0.55)
    assert heard(*limits(0, 10, "100s")).room("u/m", 0, NOW) == 0.0


@pytest.mark.parametrize("kind", ["requests", "tokens", "input-tokens"])
def test_the_headers_of_anthropic(kind: str) -> None:
    start = f"anthropic-ratelimit-{kind}-"
    rooms = heard(f"{start}remaining: 25", f"{start}limit: 100", f"{start}reset: {LATER}")
    assert rooms.room("u/m", 0, NOW) == pytest.approx(0.25)
    assert rooms.room("u/m", 0, NOW + 50 * NANO) == pytest.approx(0.625)
    assert rooms.room("u/m", 0, NOW + 100 * NANO) == 1.0


def test_a_reading_without_an_end_is_believed_for_a_minute_and_none_for_longer_than_an_hour() -> None:
    rooms = heard("x-ratelimit-remaining-tokens: 0", "x-ratelimit-limit-tokens: 10")
    assert rooms.room("u/m", 9, NOW + STALE // 2) == 0.0
    assert rooms.room("u/m", 9, NOW + STALE) == 1.0
    assert heard(*limits(0, 10**9, "30d", "tokens")).room("u/m", 1, NOW + LONGEST) == 1.0


def test_where_no_limit_is_stated_it_is_the_most_that_was_seen() -> None:
    rooms = heard("x-ratelimit-remaining-requests: 80", "x-ratelimit-reset-requests: 9s")
    assert rooms.room("u/m", 0, NOW) == 1.0
    heard("x-ratelimit-remaining-requests: 20", "x-ratelimit-reset-requests: 9s", rooms=rooms)
    assert rooms.room("u/m", 0, NOW) == 0.25


def test_a_newer_answer_replaces_what_was_known() -> None:
    rooms = heard(*limits(10, 100, "90s"))
    heard(*limits(70, 100, "90s"), rooms=rooms, now=NOW + NANO)
    assert rooms.room("u/m", 0, NOW + NANO) == pytest.approx(0.7)


def test_a_429_leaves_nothing_for_as_long_as_it_says() -> None:
    rooms = heard("retry-after: 7", status=429)
    assert rooms.room("u/m", 0, NOW + 7 * NANO - 1) == 0.0
    assert rooms.room("u/m", 0, NOW + 7 * NANO) == 1.0
    heard("retry-after: 7", status=429, rooms=rooms)
    heard(rooms=rooms)
    assert rooms.room("u/m", 0, NOW + 1) == 1.0, "it answers again"
    assert heard(status=429).room("u/m", 0, NOW + NANO // 2) == 0.0


@pytest.mark.parametrize("value", ["", "-1", "many", "9" * 20, "1.5"])
def test_what_is_no_number_says_nothing(value: str) -> None:
    assert heard(f"x-ratelimit-remaining-requests: {value}", "x-ratelimit-limit-requests: 9").room("u/m", 0, NOW) == 1.0


def test_names_that_clients_make_up_do_not_pile_up() -> None:
    rooms = Headroom()
    for number in range(3 * TARGETS):
        heard(*limits(1, 9, "9s"), status=429, rooms=rooms, target=f"u/{number}")
    assert len(rooms._of) + len(rooms._refused) <= TARGETS + 1
