"""All client connections of one worker."""

from __future__ import annotations

import asyncio

from gateway.config.schema import Limits
from gateway.errors import Draining
from gateway.net.connection import ClientConnection, Handler, State


class Server:
    """Makes connections, enforces their deadlines, and ends them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, handle: Handler) -> None:
        self.loop = loop
        self.limits = limits
        self.handle = handle
        self.connections: set[ClientConnection] = set()
        self.closing = False  # every answer closes its connection
        self.draining = False
        self.emptied = asyncio.Event()  # while draining: the last connection is gone

    def protocol(self) -> ClientConnection:
        return ClientConnection(self)

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
