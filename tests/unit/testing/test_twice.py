"""Playing a scenario on both ways notices every difference. The gateway here is a stand-in that records by itself."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.twice import Twice

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[say hi]]"}]}


class StandIn:
    """Passes everything on untouched, by being the fake itself; its record is as long as the fake's."""

    def __init__(self, fake: FakeUpstream) -> None:
        self._fake, self.url, self.lost = fake, fake.url, 0

    def calls(self, _at_least: int = 1) -> list[dict[str, Any]]:
        rows = [{"id": f"{id(request)}", "run_id": "r"} for request in self._fake.requests]
        return rows[self.lost :]

    def until(self, look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        if not good(seen := look()):
            raise TimeoutError
        return seen


@pytest.fixture
def twice() -> Iterator[Twice]:
    with FakeUpstream(1, clock=lambda: 1_790_000_000.0) as fake:
        yield Twice(fake, StandIn(fake), 3)  # type: ignore[arg-type]


def post(url: str, body: Any = BODY, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = urllib.request.Request(url + "/v1/chat/completions", data, {"content-type": "application/json", **headers})
    with urllib.request.urlopen(sent, timeout=10) as answer:
        return json.loads(answer.read())


def test_equal_ways_give_result_requests_and_calls(twice: Twice) -> None:
    played = twice.both(post)
    assert played.result["choices"][0]["message"]["content"] == "hi"
    assert len(played.requests) == len(played.calls) == 1
    assert played.call["run_id"] == played.run() == "r"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"body": BODY}, {"body": {**BODY, "n": 2}}),
        ({"body": BODY}, {"body": json.dumps(BODY, indent=1).encode()}),
        ({"x_a": "1"}, {"x_a": "2"}),
        ({"x_a": "1"}, {}),
    ],
)
def test_a_difference_is_noticed(twice: Twice, first: dict[str, Any], second: dict[str, Any]) -> None:
    ways = iter((first, second))
    with pytest.raises(AssertionError):
        twice.both(lambda url: post(url, **next(ways)))


def test_an_injected_stream_option_is_the_one_change_allowed(twice: Twice) -> None:
    plain = json.dumps(BODY, separators=(",", ":")).encode()
    spliced = b'{"stream_options":{"include_usage":true},' + plain[1:]
    ways = iter((plain, spliced))
    assert twice.both(lambda url: post(url, next(ways))).requests[0].body == spliced


def test_a_call_that_is_not_recorded_is_noticed(twice: Twice) -> None:
    twice.gate.lost = 1  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        twice.through(post)


def test_ids_differ_between_scenarios_and_are_equal_on_both_ways(twice: Twice) -> None:
    first = twice.both(post).result["id"]
    twice.salt = 4
    assert twice.both(post).result["id"] != first
