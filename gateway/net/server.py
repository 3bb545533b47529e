"""All client connections of one worker."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from gateway.config.schema import Limits
from gateway.errors import Draining, GatewayError, Overloaded
from gateway.net.connection import ClientConnection, Handler, State
from gateway.net.descriptors import Descriptors


class Server:
    """Makes connections, enforces their deadlines, and ends them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        handle: Handler,
        descriptors: Descriptors | None = None,
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.handle = handle
        self.connections: set[ClientConnection] = set()
        self.closing = False  # every answer closes its connection
        self.draining = False
        self.emptied = asyncio.Event()  # while draining: the last connection is gone
        self._descriptors = descriptors
        self._refused: deque[ClientConnection] = deque()  # for want of a descriptor, the one refused first in front
        if descriptors is not None:
            descriptors.give_clients = self.close_resting

    def protocol(self) -> ClientConnection:
        return ClientConnection(self)

    def crowded(self, connection: ClientConnection) -> GatewayError | None:
        """Why this new connection is one too many."""
        count = len(self.connections)
        if count > self.limits.connections:
            return Overloaded("too many connections", retry_after=1)
        fault = self._descriptors.crowded(count) if self._descriptors is not None else None
        if fault is not None and self._descriptors is not None:
            self._refused.append(connection)
            while len(self._refused) > self._descriptors.kept // 2:
                self._refused.popleft().transport.abort()
        return fault

    def close_resting(self, count: int) -> int:
        """Close up to so many connections that wait for a next request, those that have waited longest; how many."""
        resting = (one for one in self.connections if one.resting and one.idle() and not one.transport.is_closing())
        found = heapq.nsmallest(count, resting, key=lambda one: one.deadline)
        for one in found:
            one.transport.close()
        return len(found)

    def lost(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self.emptied.set()

    def tick(self) -> None:
        now = self.loop.time()
        for connection in list(self.connections):
            connection.tick(now)

    def drain(self) -> None:
        """Close idle connections; those under way end after their call."""
        self.closing = self.draining = True
        if not self.connections:
            self.emptied.set()
        for connection in list(self.connections):
            if connection.idle():
                connection.transport.close()

    def cut(self) -> None:
        """The time to drain is over: calls still under way get the error event of their dialect."""
        for connection in list(self.connections):
            if connection.on_gone is not None:
                connection.interrupt(Draining("the gateway is shutting down"))
            elif connection.state is not State.BUSY:
                connection.transport.abort()
