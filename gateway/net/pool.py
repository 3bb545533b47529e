"""Keep-alive pools per origin.

Theory of operation: see `gateway.net.exchange` for one connection and one answer. Deadlines are numbers; `Pools.tick`
fails what is overdue. A connection that the peer closed while idle is dropped at once, and before reuse the socket is
asked once more, so that a request is never written into a connection that is known to be dead. Where one
dies all the same in the moment of its use, `stages.attempt` asks for a fresh one. Where this process may open no more
files, connecting waits a moment for others to give way (`gateway.net.descriptors`); that is no fault of the upstream.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable

from gateway.call import Attempt, Target
from gateway.config.schema import Timeouts
from gateway.errors import ClientGone, ConnectFailed, GatewayError, UpstreamTimeout
from gateway.net.descriptors import Descriptors, is_out
from gateway.net.exchange import UpstreamExchange
from gateway.net.origin import IDLE_SECONDS, Origin, UpstreamConnection
from gateway.ports import Downstream

IDLE_LIMIT = 1_024  # kept connections per origin
PATIENCE, PAUSE = 1.0, 0.02  # seconds to wait for a file descriptor, and between two looks
Resolve = Callable[[str, int], Awaitable[list[str]]]


class Pools:
    """Implements ports.Upstreams over every configured origin. `resolve`: the addresses of a host, for those origins
    that are guarded; the operating system's where None is given."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        resolve: Resolve | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        self.loop = loop
        self._descriptors = descriptors or Descriptors()
        self._descriptors.give_upstreams = self.close_resting
        self._resolve = resolve or self._addresses
        self.origins: dict[Target, Origin] = {}
        self.active: set[UpstreamExchange] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def add(
        self,
        target: Target,
        timeouts: Timeouts,
        tls: ssl.SSLContext | None,
        guard: Callable[[str], str] | None = None,
    ) -> None:
        try:
            ipaddress.ip_address(target.host)
            named = False
        except ValueError:
            named = target.host != "localhost"
        if target in self.origins:
            self._close_idle(self.origins[target])
        self.origins[target] = Origin(target, timeouts, tls, named, deque(), guard, descriptors=self._descriptors)

    async def open(
        self,
        attempt: Attempt,
        head: bytes,
        body: bytes,
        owner: Downstream,
        *,
        patience: Callable[[], float] | None = None,
        fresh: bool = False,
    ) -> UpstreamExchange:
        """Send `head` + `body`; return at the head of the answer. Raises UpstreamFault or ClientGone."""
        origin = self.origins[attempt.target]
        exchange = UpstreamExchange(self, head.startswith(b"HEAD "))
        owner.on_gone = exchange.interrupt
        try:
            waits = attempt.waits or origin.timeouts
            kept = None if fresh else self._idle(origin)
            connection = kept or await self._connect(origin, exchange, waits.connect)
            if owner.gone:  # it needs no answer any more
                self.give_back(connection)
                raise ClientGone()
            exchange.allow(waits)
            exchange.patience = patience
            self.active.add(exchange)
            exchange.send(connection, head + body)
            attempt.reused, attempt.sent = exchange.reused, True
            await exchange.answered()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _idle(self, origin: Origin) -> UpstreamConnection | None:
        now = self.loop.time()
        while origin.idle:
            connection = origin.idle.pop()
            if connection.usable(now):
                return connection
            connection.cut()
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        idle = connection.origin.idle
        if len(idle) < IDLE_LIMIT and self.origins.get(connection.origin.target) is connection.origin:
            connection.idle_since = self.loop.time()
            idle.append(connection)
        else:
            connection.transport.close()

    async def _connect(self, origin: Origin, exchange: UpstreamExchange, seconds: float) -> UpstreamConnection:
        """Connect in a task of its own, so that a client that leaves does not wait for it."""
        made: list[UpstreamConnection] = []

        async def connect() -> None:
            try:
                connection = await self._dial(origin, seconds)
            except GatewayError as fault:
                exchange.fail(fault)
                return
            if exchange.fault is None and not abandoned:
                made.append(connection)
                exchange.wake()
            else:
                self.give_back(connection)

        abandoned = False
        task = self.loop.create_task(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        try:
            while not made:
                if exchange.fault is not None:
                    raise exchange.fault
                await exchange.moved()
        except BaseException:
            abandoned = True
            if made:
                self.give_back(made.pop())
            raise
        return made[0]

    async def _dial(self, origin: Origin, seconds: float) -> UpstreamConnection:
        """Open a connection. Raises ConnectFailed, UpstreamTimeout or NoDescriptor; foreign errors end here."""
        target = origin.target
        try:
            async with asyncio.timeout(seconds):
                return await self._patiently(origin, self.loop.time() + min(PATIENCE, seconds / 2))
        except TimeoutError:
            raise UpstreamTimeout(f"no connection to {target.host} in time", code="upstream_connect_timeout") from None
        except ssl.SSLError as error:
            detail = getattr(error, "verify_message", "") or error.reason or "handshake failed"
            raise ConnectFailed(f"TLS to {target.host} failed: {detail}", code="upstream_tls_failed") from None
        except socket.gaierror:
            raise ConnectFailed(f"the name {target.host} does not resolve", code="upstream_dns_failed") from None
        except ValueError:  # UnicodeError is one
            raise ConnectFailed(f"{target.host} is not a host name", code="upstream_dns_failed") from None
        except OSError as error:
            if origin.tls is not None and isinstance(error, ConnectionResetError | ConnectionAbortedError):
                raise ConnectFailed(f"{target.host} broke off the TLS handshake", code="upstream_tls_failed") from None
            raise ConnectFailed(f"no connection to {target.host}:{target.port}: {error.strerror or error}") from None

    async def _patiently(self, origin: Origin, until: float) -> UpstreamConnection:
        """Open a connection; where there is no file descriptor for it, again until then. Raises NoDescriptor."""
        while True:
            try:
                if origin.guard is None:
                    return await self._connected(origin, origin.target.host)
                return await self._guarded(origin, origin.guard)
            except OSError as error:
                # A name server is asked through one, too, and what a resolver says then is not to be trusted.
                if not (is_out(error) or (isinstance(error, socket.gaierror) and self._descriptors.none_left())):
                    raise
            if self.loop.time() >= until:
                raise self._descriptors.missing()
            self._descriptors.spare()
            await asyncio.sleep(PAUSE)

    async def _connected(self, origin: Origin, host: str) -> UpstreamConnection:
        target = origin.target
        _, connection = await self.loop.create_connection(
            lambda: UpstreamConnection(origin, self.loop),
            host,
            target.port,
            ssl=origin.tls,
            server_hostname=target.host if origin.tls else None,
        )
        return connection

    async def _guarded(self, origin: Origin, guard: Callable[[str], str]) -> UpstreamConnection:
        """Resolve once, check every address, and connect to one that was checked: the name is not asked again between
        the two. Raises OSError as connecting does, and ConnectFailed for an address that is not allowed."""
        target = origin.target
        addresses = await self._resolve(target.host, target.port)
        if any(map(guard, addresses)):
            raise ConnectFailed(
                f"{target.host} has an address that tools must not be reached at (see `allow_private`)",
                code="tool_address_refused",
            )
        fault: OSError = socket.gaierror(f"{target.host} has no address")
        for address in addresses:
            try:
                return await self._connected(origin, address)
            except ssl.SSLError:
                raise
            except OSError as error:
                fault = error
        raise fault

    async def _addresses(self, host: str, port: int) -> list[str]:
        """What the operating system's resolver says. Raises socket.gaierror."""
        found = await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def tick(self) -> None:
        """Fail what is overdue; close what idles too long. Called a few times per second."""
        now = self.loop.time()
        for exchange in [late for late in self.active if late.deadline <= now]:
            exchange.overdue()
        for origin in self.origins.values():
            while origin.idle and now - origin.idle[0].idle_since > IDLE_SECONDS:
                origin.idle.popleft().transport.close()

    def close_resting(self, count: int) -> int:
        """Close up to so many connections that nobody uses, of each origin the oldest first; how many that were."""
        left = count
        for origin in self.origins.values():
            while left and origin.idle:
                origin.idle.popleft().transport.close()
                left -= 1
        return count - left

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for origin in self.origins.values():
            self._close_idle(origin)

    @staticmethod
    def _close_idle(origin: Origin) -> None:
        while origin.idle:
            origin.idle.pop().transport.close()
