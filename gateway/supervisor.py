"""`tollgate serve`: the parent of all processes. It carries no traffic; what dies it starts again.

Rules
1. It binds the sockets and keeps them: connections wait while the process behind a socket is replaced.
2. It alone reads the configuration; children have it over their control channels (see `process.control`).
3. A reload is all or nothing: a file with a problem, or one that a child cannot take over, leaves the old in force.
4. It ends in this order: unready, workers drained, what they left recovered, recorder flushed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from msgspec import structs

from gateway.config import check_semantic
from gateway.config.address import parse_address
from gateway.config.load import Loaded, load_with_source
from gateway.config.problems import ConfigError
from gateway.config.reload import diff
from gateway.config.schema import Config
from gateway.process.adopt import ListenerMoved, adopted, files
from gateway.process.banner import banner
from gateway.process.child import Child, cause, until_gone
from gateway.process.control import (
    Configure,
    Configured,
    Consumed,
    Drain,
    LameDuck,
    Message,
    Ready,
    Stats,
    Status,
    ToChild,
    WorkerStatus,
)
from gateway.process.optional import Optional
from gateway.process.sockets import CannotListen, bind_both, bound, close_all, raise_file_limit
from gateway.process.state import ORPHAN_SECONDS, StateDirectory, StateUnusable
from gateway.process.upkeep import Upkeep
from gateway.process.watch import FileWatch

WORKER = (sys.executable, "-m", "gateway.worker")
RECORDER = (sys.executable, "-m", "gateway.recorder.service")
MATCHER = (sys.executable, "-m", "gateway.matcher.service")
START_SECONDS = 30.0  # a gateway that is not ready by then gives up
START_FAILURES = 2  # deaths of one process before it was ever ready; who is killed is not to blame for it
CONFIGURE_SECONDS = 10.0
WATCH_SECONDS = 0.5
GRACE_SECONDS = 2.0  # for workers, beyond their time to drain
FLUSH_SECONDS = 3.0  # for the recorder

_log = logging.getLogger("tollgate.supervisor")


class CannotStart(Exception):
    """The gateway did not become ready; the message says why."""


class Supervisor:
    """One gateway. `load` reads the configuration anew; tests replace the commands of the children."""

    def __init__(
        self,
        loaded: Loaded,
        load: Callable[[], Loaded],
        *,
        worker: Sequence[str] = WORKER,
        recorder: Sequence[str] = RECORDER,
        out: TextIO | None = None,
    ) -> None:
        config = loaded.config
        assert config.state is not None
        assert config.journal.directory is not None
        self._load = load
        self._file = loaded.file
        self._config = config
        self._out = out or sys.stdout
        self._state = StateDirectory(Path(config.state), Path(config.journal.directory))
        self._bind(config)
        self._listen_at, self._admin_at = bound(self._sockets[0]), bound(self._admin)
        self._state.describe(str(self._listen_at), str(self._admin_at), tls=config.tls is not None)
        self._upkeep = Upkeep(self._state.journal, self._state.inflight, config.journal)
        self._workers = [
            Child(f"worker {index}", index, worker, [sock], on_message=self._received, on_exit=self._exited)
            for index, sock in enumerate(self._sockets)
        ]
        self._recorder = Child(
            "recorder",
            -1,
            recorder,
            [self._admin],
            keep=self._state.locks,
            on_message=self._received,
            on_exit=self._exited,
        )
        self._matcher = Optional("matcher", MATCHER, self._upkeep.event)
        self._watch = FileWatch(files(loaded))
        self._answers: dict[Child, asyncio.Future[Configured]] = {}
        self._reloading = asyncio.Lock()
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._cutting = asyncio.Event()
        self._broken = ""  # why the gateway cannot start
        self._tasks: set[asyncio.Task[Any]] = set()
        now = time.time_ns()
        self._status = Status(now, False, (), 1, now, True, 0)

    def _bind(self, config: Config) -> None:
        where = (parse_address(config.listen), config.workers, parse_address(config.admin))
        try:
            self._sockets, self._admin = bind_both(*where, ORPHAN_SECONDS if self._state.unclean else 0.0)
        except CannotListen:
            self._state.close()
            raise

    @property
    def _children(self) -> list[Child]:
        return [*self._workers, self._recorder]

    async def run(self) -> int:
        """Serve until told to end. Returns the exit status; raises CannotStart."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reload()))
        try:
            self._upkeep.event("start", pid=os.getpid(), workers=len(self._workers))
            await asyncio.gather(*(child.start(partial(self._first, child)) for child in self._children))
            await self._matcher.follow(self._matching())
            self._upkeep.recover()
            self._keeper = self._spawn(self._keep_up())
            if await self._wait_until_started():
                self._announce()
                await self._stopping.wait()
            await self._end()
        except OSError as error:
            raise CannotStart(f"a process cannot be started: {error}") from None
        finally:
            for task in self._tasks:
                task.cancel()
            for child in self._children:
                child.kill()
            self._matcher.kill()
            close_all([*self._sockets, self._admin])
            self._upkeep.close()
            self._state.close()
        if self._broken:
            raise CannotStart(self._broken)
        return 0

    async def reload(self) -> bool:
        """Read the configuration again and bring it into force everywhere, or nowhere."""
        async with self._reloading:
            read = self._watch.snapshot()
            try:
                loaded = self._load()
                config, waiting = adopted(self._config, loaded.config)
            except ConfigError as error:
                return self._not_reloaded("; ".join(str(problem) for problem in error.problems))
            except ListenerMoved as error:
                return self._not_reloaded(str(error))
            before, changed = self._config, ", ".join(diff(self._config, config))
            refusal = await self._distribute(config)
            if self._stopping.is_set():
                return False  # nobody takes anything over any more, and the journal is closed
            if refusal:
                await self._distribute(before)
                return self._not_reloaded(refusal)
            self._file = loaded.file
            self._watch.watch(files(loaded), read)
            self._upkeep.configure(config.journal)
            self._upkeep.event("reload", generation=self._status.generation, changed=changed[:1000])
            message = f"changes that need a restart: {', '.join(waiting)}" if waiting else ""
            _log.info("configuration reloaded; changed: %s", changed or "nothing")
            if waiting:
                _log.warning("not in force before a restart: %s", ", ".join(waiting))
            self._tell(reload_ok=True, reloaded_at=time.time_ns(), reload_message=message, needs_restart=waiting)
            return True

    # -- configuration ----------------------------------------------------------------------------------------

    async def _distribute(self, config: Config) -> str:
        """Bring a configuration into force in every child; returns why one refused it, or an empty string."""
        self._config = config
        self._tell(generation=self._status.generation + 1, configured_at=time.time_ns())
        asked = [child for child in self._children if child.pid and not child.coming]
        self._answers = {child: asyncio.Future() for child in asked}
        for child in asked:
            child.send(self._configure(child.index))
        if asked:
            await asyncio.wait(self._answers.values(), timeout=CONFIGURE_SECONDS)
        answers, self._answers = self._answers, {}
        for child, answer in answers.items():
            if not answer.done():
                return f"{child.name} did not take the configuration over in {CONFIGURE_SECONDS:.0f} s"
            if not answer.result().ok:
                return f"{child.name}: {answer.result().message}"
        await self._matcher.follow(self._matching())
        return ""

    def _not_reloaded(self, message: str) -> bool:
        _log.error("configuration not reloaded, the old one stays in force: %s", message)
        self._upkeep.event("reload_failed", message=message[:2000])
        self._tell(reload_ok=False, reloaded_at=time.time_ns(), reload_message=message)
        return False

    def _matching(self) -> Configure | None:
        return self._configure() if check_semantic.active(self._config) else None

    def _configure(self, index: int = -1) -> Configure:
        return Configure(
            config=self._config,
            generation=self._status.generation,
            state=str(self._state.path),
            inflight=str(self._state.inflight),
            journal=str(self._state.journal),
            listen=str(self._listen_at),
            admin=str(self._admin_at),
            index=index,
        )

    def _first(self, child: Child) -> list[ToChild]:
        status = structs.replace(self._status, workers=self._worker_states())
        return [self._configure(child.index), *((status,) if child is self._recorder else ())]

    def _worker_states(self) -> tuple[WorkerStatus, ...]:
        return tuple(child.status for child in self._workers)

    def _tell(self, **changes: object) -> None:
        """Let the recorder know how things stand."""
        self._status = structs.replace(self._status, workers=self._worker_states(), **changes)
        self._recorder.send(self._status)

    # -- children ---------------------------------------------------------------------------------------------

    def _received(self, child: Child, message: Message) -> None:
        match message:
            case Ready():
                child.ready = child.came = True
                child.failures = 0
                self._tell()
                if all(each.came for each in self._children):
                    self._started.set()
            case Configured(generation=generation):
                answer = self._answers.get(child)
                if answer is not None and not answer.done() and generation == self._status.generation:
                    answer.set_result(message)
                elif not message.ok:
                    self._fail_start(f"{child.name}: {message.message}")
            case Consumed(positions=positions):
                self._upkeep.consumed = positions
            case Stats(values=values):
                _log.info("%s: %s", child.name, values)

    def _exited(self, child: Child, code: int, lived: float, pid: int) -> None:
        answer = self._answers.get(child)
        if answer is not None and not answer.done():  # whoever comes next starts with what is in force then
            answer.set_result(Configured(self._status.generation, True))
        if child is not self._recorder:
            self._upkeep.recover()
        self._tell()
        if self._stopping.is_set():
            return
        _log.error("%s (process %d) died: %s after %.1f s", child.name, pid, cause(code), lived)
        kind = "recorder_died" if child is self._recorder else "worker_died"
        self._upkeep.event(kind, process=child.name, pid=pid, cause=cause(code), lived_seconds=round(lived, 3))
        if not self._started.is_set() and child.failures >= START_FAILURES and code != -signal.SIGKILL:
            self._fail_start(f"{child.name} does not start: {cause(code)}")
        else:
            self._spawn(self._restart(child))

    async def _restart(self, child: Child) -> None:
        await asyncio.sleep(child.delay)
        while not self._stopping.is_set():
            try:
                await child.start(partial(self._first, child))
            except OSError as error:
                child.failures += 1
                _log.error("%s cannot be started: %s", child.name, error)
                await asyncio.sleep(child.delay)
            else:
                break
        if self._stopping.is_set():
            child.kill()

    # -- life -------------------------------------------------------------------------------------------------

    async def _wait_until_started(self) -> bool:
        """False where the gateway was told to end first, or does not come up."""
        waits = {asyncio.create_task(event.wait()) for event in (self._started, self._stopping)}
        await asyncio.wait(waits, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not self._started.is_set() and not self._stopping.is_set():
            late = ", ".join(child.name for child in self._children if not child.ready)
            self._fail_start(f"not ready after {START_SECONDS:.0f} s: {late}")
        return not self._stopping.is_set()

    def _announce(self) -> None:
        tls = self._config.tls is not None
        text = banner(self._listen_at, self._admin_at, tls=tls, file=self._file, state=self._state.path)
        self._out.write(text)
        self._out.flush()

    def _fail_start(self, reason: str) -> None:
        if not self._started.is_set():
            self._broken = self._broken or reason
            self._cutting.set()
            self._stopping.set()

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        upkeep = loop.time()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if loop.time() - upkeep >= 1:
                upkeep = loop.time()
                self._upkeep.tick()
            if not self._stopping.is_set() and self._watch.changed():
                _log.info("the configuration changed on disk")
                await self.reload()

    def _told_to_end(self) -> None:
        if self._stopping.is_set():
            _log.warning("told to end again: cutting what still runs")
            self._cutting.set()
        self._stopping.set()

    async def _end(self) -> None:
        limits = self._config.limits
        if not self._cutting.is_set():
            _log.info("draining for up to %.0f s", limits.drain_seconds)
        self._tell(draining=True)
        if limits.lame_duck_seconds and not self._cutting.is_set():
            for child in self._workers:
                child.send(LameDuck())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cutting.wait(), limits.lame_duck_seconds)
        for child in self._workers:
            child.send(Drain(limits.drain_seconds))
        close_all(self._sockets)
        await until_gone(self._workers, limits.drain_seconds + GRACE_SECONDS, self._cutting)
        await self._matcher.end(GRACE_SECONDS, self._cutting)
        self._keeper.cancel()
        self._upkeep.recover()
        self._upkeep.event("stop", cut=self._cutting.is_set())
        self._upkeep.close()
        self._recorder.send(Drain(FLUSH_SECONDS))
        await until_gone([self._recorder], FLUSH_SECONDS + GRACE_SECONDS / 4, self._cutting)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def run(
    config_path: Path | None,
    overrides: Mapping[str, object],
    *,
    worker: Sequence[str] = WORKER,
    recorder: Sequence[str] = RECORDER,
) -> int:
    """Serve with the configuration found from here. Returns the exit status: 0, 1 (cannot start), 2 (bad file)."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def load() -> Loaded:
        return load_with_source(config_path, os.environ, overrides)

    try:
        loaded = load()
        raise_file_limit()
        return asyncio.run(_serve(loaded, load, worker, recorder))
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        return 2
    except (CannotListen, CannotStart, StateUnusable) as error:
        sys.stderr.write(f"tollgate: {error}\n")
        return 1


async def _serve(loaded: Loaded, load: Callable[[], Loaded], worker: Sequence[str], recorder: Sequence[str]) -> int:
    return await Supervisor(loaded, load, worker=worker, recorder=recorder).run()
