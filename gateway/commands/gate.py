"""The gateway that a command runs through: the one of this state directory if it runs, else one started for it.

Rules
1. Whoever runs something holds a shared lock on `run.lock`. A gateway started for a command is stopped, draining,
   by the last one to leave; its process id stands in that file. One that somebody else started is left alone.
2. The lock is taken before a gateway is looked for, and the last one to leave holds it alone while it stops the
   gateway: nobody is given a gateway that is about to go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from gateway.commands.client import Admin, admin_of
from gateway.config import places
from gateway.config.address import Address, parse_address
from gateway.config.schema import Config
from gateway.process.sockets import CannotListen, bind, reachable
from gateway.process.state import Holder, holder

START_SECONDS = 40.0  # for a gateway to be ready
KNOWN_SECONDS = 10.0  # for one that is there to answer
GRACE_SECONDS = 10.0  # to stop in, beyond its time to drain
LOG = "gateway.log"  # what a gateway writes that was started here
_LOCK = "run.lock"
_POLL_SECONDS = 0.05
_LOG_TAIL = 2000


class CannotServe(OSError):
    """There is no gateway and none could be started; the message says why."""


class Gate(Struct, frozen=True):
    """A gateway that is ready for calls."""

    url: str  # of the data port, without a path
    admin: Admin
    started: bool  # for this command


@contextlib.contextmanager
def gateway(config: Config, file: Path | None, env: Mapping[str, str]) -> Iterator[Gate]:
    """Raises CannotServe."""
    state = places.state(config)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    process: subprocess.Popen[bytes] | None = None
    try:
        found = holder(state)
        ready = found is not None and _await(config, None, KNOWN_SECONDS)
        if not ready:
            process = start(config, file, env)
        found = holder(state)
        if found is None:
            raise CannotServe("the gateway is gone again")
        if process is not None and found.pid == process.pid:
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d" % process.pid, 0)
        yield gate_of(config, found, started=process is not None)
    finally:
        _leave(lock, state, config.limits.drain_seconds + GRACE_SECONDS)
        os.close(lock)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)  # its status, where it was stopped


def gate_of(config: Config, found: Holder, *, started: bool) -> Gate:
    address = reachable(parse_address(found.listen))
    return Gate(f"{'https' if found.tls else 'http'}://{address}", admin_of(config, found), started)


def start(config: Config, file: Path | None, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a gateway and wait until it, or another one that came first, is ready. Raises CannotServe."""
    log = places.state(config) / LOG
    for again in (True, False):
        process = _launch(config, file, env, log)
        if _await(config, process, START_SECONDS):
            return process
        died = process.poll() is not None
        if not died:
            process.kill()
            process.wait()
        said = log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        if not (died and again and "the port is taken" in said):
            break
    raise CannotServe(f"the gateway did not start; {log} ends with:\n{said}")


def _launch(config: Config, file: Path | None, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    listen, admin = free(parse_address(config.listen)), free(parse_address(config.admin))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--listen", str(listen), "--admin", str(admin)]
    command += ["--state", str(places.state(config)), *(("--config", str(file)) if file is not None else ())]
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**env, "PYTHONSAFEPATH": "1"},  # whatever lies in this directory is none of its modules
            start_new_session=True,  # Ctrl-C is for the command, not for its gateway
        )


def free(address: Address) -> Address:
    """The address, or one of the system's choice on that host where its port is taken."""
    try:
        for sock in bind(address):
            sock.close()
    except CannotListen:
        return Address(address.host, 0)
    return address


def _await(config: Config, process: subprocess.Popen[bytes] | None, seconds: float) -> bool:
    """Wait for the gateway of the state directory to be ready; False where it is not in time, or ends."""
    until = time.monotonic() + seconds
    state = places.state(config)
    while time.monotonic() < until:
        found = holder(state)
        if found is not None and found.admin and admin_of(config, found).ready():
            return True
        if found is None and (process is None or process.poll() is not None):
            return False
        time.sleep(_POLL_SECONDS)
    return False


def _leave(lock: int, state: Path, seconds: float) -> None:
    """Stop the gateway if it was started by a command and nobody runs anything through it any more."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    text = os.pread(lock, 20, 0)
    found = holder(state)
    if found is None or text != b"%d" % found.pid:
        return
    os.ftruncate(lock, 0)
    until = time.monotonic() + seconds
    os.kill(found.pid, signal.SIGTERM)
    while time.monotonic() < until and (left := holder(state)) is not None and left.pid == found.pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)
