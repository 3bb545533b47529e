"""Listening sockets: bound once by the supervisor, inherited by whoever serves them."""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections.abc import Iterable

from gateway.config.address import Address

BACKLOG = 4096
_POLL_SECONDS = 0.05


class CannotListen(Exception):
    """An address cannot be bound; the message says which and why."""


def bind(address: Address, count: int = 1, patience: float = 0.0) -> list[socket.socket]:
    """`count` listening sockets on one address; with more than one the kernel spreads connections over them.

    Connections queue from now on, also while nobody accepts. Raises CannotListen; where the port is taken, after
    `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _bind(address, count)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise CannotListen(_reason(address, error)) from None
        time.sleep(_POLL_SECONDS)


def _bind(address: Address, count: int) -> list[socket.socket]:
    family, where = _resolve(address)
    sockets: list[socket.socket] = []
    try:
        if count > 1:
            _exclusive(family, where)
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
            sock.bind(where)
            sock.setblocking(False)
            where = (where[0], sock.getsockname()[1], *where[2:])
        for sock in sockets:
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bind_both(
    listen: Address, workers: int, admin: Address, patience: float
) -> tuple[list[socket.socket], socket.socket]:
    """The sockets of the workers, and that of the admin side. Raises CannotListen; then none is open."""
    sockets = bind(listen, workers, patience)
    try:
        return sockets, bind(admin, 1, patience)[0]
    except CannotListen:
        close_all(sockets)
        raise


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Idempotent."""
    for sock in sockets:
        sock.close()


def bound(sock: socket.socket) -> Address:
    """Where a socket listens."""
    name = sock.getsockname()
    return Address(name[0], name[1])


def reachable(address: Address) -> Address:
    """Where a client on this machine connects to."""
    if not address.wildcard:
        return address
    return Address("::1" if ":" in address.host else "127.0.0.1", address.port)


def raise_file_limit() -> None:
    """Two descriptors per call: take as many as this user may have; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _resolve(address: Address) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(f"cannot listen on {address}: {error.strerror}") from None
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, where  # type: ignore[return-value]  # the stub allows for families without addresses


def _exclusive(family: socket.AddressFamily, where: tuple[str, int] | tuple[str, int, int, int]) -> None:
    """Shared ports join silently: see first that nobody else of this user has it."""
    if where[1]:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)


def _reason(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {address}: the port is taken by another process; stop it or choose another address"
    if error.errno == errno.EACCES:
        return f"cannot listen on {address}: ports below 1024 need a privilege this process does not have"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {address}: this machine does not have that address"
    return f"cannot listen on {address}: {error.strerror}"
