"""`tollgate top`: how things stand, at a terminal; for whoever is there by ssh.

It asks the admin API of the running gateway, as every command does, beside the loop that draws and reads keys: a slow
answer holds no key up. Where standard output is no terminal, or with `--once`, it prints one look and ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from msgspec import structs
from rich.console import Console
from rich.live import Live

from gateway.commands.client import Admin, NoGateway, Refused, admin_of, run_path
from gateway.commands.runs import whoever
from gateway.commands.top_keys import Do, Screen, press, read
from gateway.commands.top_view import Snapshot, draw, share
from gateway.config.load import load

RUNS = 200
ACCOUNTS = 200
SCOPES = ("global", "team", "key", "agent", "model", "upstream")
TICK = 0.05  # seconds a key waits at most
BESIDE_RUNS = 40  # lines of everything but runs, at most
KEEPS = ("total", "rolling")
DONE = {"kill": "stopped", "resume": "may go on"}


def run(
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
    *,
    every: float = 1.0,
    once: bool = False,
) -> int:
    """Returns the exit status; raises ConfigError, NoGateway, Refused, KeyboardInterrupt."""
    admin = admin_of(load(path, env, overrides))
    found = look(admin, Screen())
    console = Console()
    if once or not (console.is_terminal and sys.stdin.isatty()):
        console.print(draw(found, Screen(), str(admin.address), console.width, BESIDE_RUNS + len(found.runs)))
        return 0
    with (
        noted() as interrupts,
        raw(sys.stdin.fileno()),
        Live(console=console, screen=True, auto_refresh=False) as live,
        Top(admin, found) as top,
    ):
        while not interrupts and top.turn(live, every):
            pass
    if interrupts:
        raise KeyboardInterrupt
    return 0


def look(admin: Admin, screen: Screen) -> Snapshot:
    """Raises NoGateway or Refused."""
    summary = admin.ask("GET", "/api/summary")
    since = quote(summary["day"]["since"], safe="")
    order = f"order=cost&since={since}" if screen.by_cost else "order=recent"
    runs = admin.ask("GET", f"/api/runs?limit={RUNS}&{order}")["runs"]
    budgets = []
    for scope in SCOPES:
        with contextlib.suppress(Refused):  # the store of budgets may be away
            budgets += admin.ask("GET", f"/api/budgets?scope={scope}&limit={ACCOUNTS}")["budgets"]
    kept = sorted((one for one in budgets if one["rule"] in KEEPS), key=share, reverse=True)
    stopped = admin.ask("GET", "/api/controls")["stopped"]
    return Snapshot(
        summary=summary,
        runs=runs,
        budgets=kept,
        breakers=admin.ask("GET", "/api/breakers")["breakers"],
        stopped=frozenset(one["value"] for one in stopped if one["scope"] == "run"),
        by_cost=screen.by_cost,
    )


class Top:
    """What is shown and what was pressed. One look, or one decision, is under way at a time."""

    def __init__(self, admin: Admin, found: Snapshot) -> None:
        self._admin, self._found, self._screen = admin, found, Screen()
        self._pool = ThreadPoolExecutor(1, "top")
        self._looking: Future[Snapshot] | None = None
        self._deciding: Future[str] | None = None
        self._next = 0.0
        self._shown: object = None  # what the terminal shows; over a slow line nothing is drawn twice

    def __enter__(self) -> Top:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def turn(self, live: Live, every: float) -> bool:
        """Draw, wait for a key for a moment, take in what came. False: the end."""
        size = live.console.size
        shown = (self._found, self._screen, size)
        if shown != self._shown:
            self._shown = shown
            live.update(draw(self._found, self._screen, str(self._admin.address), *size), refresh=True)
        for key in pressed(sys.stdin.fileno()):
            self._screen, wanted = press(self._screen, key, [one["id"] for one in self._found.runs])
            if wanted is not None and wanted.what == "quit":
                return False
            if wanted is not None and self._deciding is None:
                self._deciding = self._pool.submit(self._decide, wanted)
            if key == "o":
                self._next = 0.0
        self._take(every)
        return True

    def _take(self, every: float) -> None:
        if self._deciding is not None and self._deciding.done():
            self._screen = structs.replace(self._screen, note=self._deciding.result())
            self._deciding, self._next = None, 0.0
        if self._looking is not None and self._looking.done():
            try:
                self._found = self._looking.result()
            except OSError as error:
                self._found = structs.replace(self._found, fault=str(error))
            self._looking = None
        if self._looking is None and not self._screen.paused and time.monotonic() >= self._next:
            self._next = time.monotonic() + every
            self._looking = self._pool.submit(look, self._admin, self._screen)

    def _decide(self, wanted: Do) -> str:
        """What came of it, in words."""
        body = {"reason": "stopped by hand" if wanted.what == "kill" else "", "by": whoever()}
        try:
            answer = self._admin.ask("POST", run_path(wanted.run, f"/{wanted.what}"), body)
        except (NoGateway, Refused) as error:
            return str(error)
        late = "" if answer["in_force"] else "; not every worker knows it yet"
        return f"run {wanted.run} {DONE[wanted.what]}{late}"


def pressed(fd: int) -> list[str]:
    """Keys that came within a moment; the end of input ends all."""
    if not select.select([fd], [], [], TICK)[0]:
        return []
    return read(os.read(fd, 1024)) or ["q"]


@contextlib.contextmanager
def noted() -> Iterator[list[int]]:
    """Ctrl-C is noted, for the loop to see: raised in the midst of drawing, it would leave the terminal as it is."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Keys come one by one and are not shown; Ctrl-C stays what it is."""
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
