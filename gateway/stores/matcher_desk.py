"""The matcher as people see it: what its scopes know, and what they are told. Beside the workers, any thread."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.policy.cached import Chosen
from gateway.ports import Feedback, MatcherState, Noted
from gateway.stores.matcher_wire import (
    Forget,
    FromMatcher,
    Report,
    Reported,
    Said,
    Say,
    ToMatcher,
    connected,
    from_matcher,
    pack,
    receive,
)

SECONDS = 2.0


class MatcherAway(OSError):
    """It does not run, or does not answer; the message says why."""


class MatcherDesk:
    """Methods raise MatcherAway."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def expected(self) -> bool:
        """Was there ever one here?"""
        return self.path.exists()

    def state(self) -> MatcherState:
        answer = self._ask(Report(1))
        if not isinstance(answer, Reported):
            raise MatcherAway("the matcher gave another answer than was asked for")
        return answer.state

    def say(self, feedback: Feedback) -> Noted:
        return self._said(Say(1, feedback))

    def forget(self, chosen: Chosen) -> Noted:
        return self._said(Forget(1, chosen))

    def _said(self, message: ToMatcher) -> Noted:
        answer = self._ask(message)
        if not isinstance(answer, Said):
            raise MatcherAway("the matcher gave another answer than was asked for")
        return answer.learned

    def _ask(self, message: ToMatcher) -> FromMatcher:
        try:
            with connected(self.path, SECONDS) as sock:
                sock.sendall(pack(message))
                return from_matcher.decode(receive(sock))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise MatcherAway(f"the matcher at {self.path} does not answer: {error}") from error
