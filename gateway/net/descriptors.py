"""File descriptors: how many this worker may have, who gets them, and who gives way.

Rules
1. A client's connection is taken where there is a descriptor for it and one for the upstream that it will ask for: a
   call that was let in finds one. Some are kept for files of the worker's own, and for those who are told no.
2. Where there is none left, connections that rest make room: those to upstreams, then those of clients between two
   requests, those whose time is up soonest first.
3. Who is still too many is answered that there is no room. Who has had that answer for longest is cut off for the next.
4. Where the system has none all the same (other files of this process, or other processes), the worker is `starved`:
   it accepts nothing until there is one, and who connects waits in the kernel's queue.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

from gateway.errors import NoDescriptor

OUT = frozenset((errno.EMFILE, errno.ENFILE))
KEPT_LEAST, KEPT_MOST = 16, 256  # beside an eighth of all
CALM_SECONDS = 10.0  # that long without a shortage, it is over; and no more than one report in that time
Give = Callable[[int], int]
Tell = Callable[[dict[str, int | str]], object]


class Descriptors:
    """Of one worker. `limit`: how many it may have; `used`: how many it has, raises OSError where that cannot be seen;
    `probe`: raises OSError where there is none left."""

    def __init__(
        self,
        limit: Callable[[], int] | None = None,
        used: Callable[[], int] | None = None,
        probe: Callable[[], None] | None = None,
    ) -> None:
        self._limit, self._used, self._probe = limit or soft_limit, used or open_now, probe or take_one
        self.limit = self._limit()
        self.used = self.own = 0  # all, and those that are connections neither of clients nor to upstreams
        self.upstreams = 0  # connections to upstreams that are open
        self.starved = False
        self.give_clients: Give = _nothing  # closes up to so many connections that rest; how many it did
        self.give_upstreams: Give = _nothing
        self.on_starved: Callable[[bool], None] = _unheard  # with each look
        self._fresh = False  # somebody was refused since the last look
        self._refused = self._given = 0  # since it was last told
        self._short_until = self._told_at = 0.0
        self._short = False

    @property
    def kept(self) -> int:
        """Descriptors that no connection gets: half for own files, half for those who are told no."""
        return min(KEPT_MOST, max(KEPT_LEAST, (self.limit - self.own) // 8))

    def crowded(self, clients: int) -> NoDescriptor | None:
        """Is one of so many connections of clients too many? Those that rest make room."""
        over = self._over(clients)
        if over <= 0:
            return None
        over -= self._give(self.give_upstreams, min(over, max(0, self.upstreams - clients)))
        if over > 0:  # each of them has two: its own, and one of an upstream
            over -= 2 * self._give(self.give_clients, max((over + 1) // 2, clients // 32))
        if over <= 0:
            return None
        return self._told_no("the gateway has no file descriptor left")

    def spare(self) -> None:
        """Let something that rests make room for one more."""
        if not self._give(self.give_upstreams, 1):
            self._give(self.give_clients, 1)

    def missing(self) -> NoDescriptor:
        """The fault of a connection that there was no descriptor for."""
        return self._told_no("the gateway had no file descriptor for a connection to the upstream")

    def _told_no(self, words: str) -> NoDescriptor:
        self._refused += 1
        self._fresh = True
        return NoDescriptor(words, retry_after=1)

    def none_left(self) -> bool:
        try:
            self._probe()
        except OSError as error:
            return is_out(error)
        return False

    def look(self, clients: int, now: float, tell: Tell) -> None:
        """A few times per second. `clients`: connections of clients; `now`: seconds. Tells how a shortage goes: when
        it begins, every now and then, and when it is over."""
        self.limit = self._limit()
        try:
            self._probe()
            self.used = self._used()
            self.own = max(0, self.used - clients - self.upstreams)
            self.starved = False
        except OSError as error:
            self.starved = is_out(error)
            self.used = self.limit if self.starved else self.used
        self.on_starved(self.starved)
        if self.starved or self._fresh:
            self._short_until = now + CALM_SECONDS
        self._fresh = False
        self._report(now, tell)

    def _report(self, now: float, tell: Tell) -> None:
        short = now < self._short_until
        if short == self._short and (not short or now < self._told_at + CALM_SECONDS or not self._refused):
            return
        self._short, self._told_at = short, now
        state = "enough" if not short else "none" if self.starved else "short"
        tell({"state": state, "used": self.used, "limit": self.limit, "refused": self._refused, "made": self._given})
        self._refused = self._given = 0

    def _over(self, clients: int) -> int:
        return self.own + self.kept + clients + max(clients, self.upstreams) - self.limit

    def _give(self, give: Give, count: int) -> int:
        given = give(count) if count > 0 else 0
        self._given += given
        return given


def _unheard(_starved: bool) -> None:
    pass


def _nothing(_count: int) -> int:
    return 0


def is_out(error: BaseException) -> bool:
    """Did it fail because there is no descriptor left, here or in the whole system?"""
    return isinstance(error, OSError) and error.errno in OUT


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_now() -> int:
    """How many this process has. Raises OSError."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1  # its size: since Linux 6.2


def take_one() -> None:
    """Raises OSError where there is none left."""
    os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
