"""The ports of translation: a call whose upstream speaks another API than its client. Sans-io, like those of dialects.

Part of `gateway.ports`, from where it is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.call import Call, Usage
from gateway.errors import GatewayError
from gateway.ports_dialect import Headers, Meter


class OtherAnswer(Protocol):
    """The answer of an upstream that speaks another API, in the client's words.

    `meter` has read what was fed, in the upstream's words; its own `feed` does nothing. `streams`: bytes come out as
    they come in; else all of them in the end.
    """

    meter: Meter
    content_type: bytes
    streams: bool

    def feed(self, data: bytes) -> bytes:
        """Decoded bytes of the upstream in, bytes for the client out. Never raises."""
        ...

    def end(self) -> bytes:
        """The upstream's body has ended. Raises BadAnswer."""
        ...

    def finish_early(self, usage: Usage) -> bytes:
        """As `Dialect.finish_early`."""
        ...

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        """As `Dialect.interruption`."""
        ...


class OtherQuestion(Protocol):
    """A request in the words of an upstream that speaks another API than its client."""

    dialect: str
    path: bytes
    body: bytes
    headers: Headers  # that the API wants
    dropped: tuple[str, ...]  # what it cannot say, and the operator lists as droppable

    def answer(self, status: int, content_type: bytes) -> OtherAnswer: ...


class Translator(Protocol):
    """Between the APIs of clients and upstreams; see dialects.translate."""

    def dialect(self, call: Call, family: str) -> str:
        """The dialect in which an upstream of this family is asked; "" where that needs no translation, or none is
        known.
        """
        ...

    def serves(self, call: Call, family: str) -> bool:
        """Can an upstream of this family answer the call: in its own API, or in translation?"""
        ...

    def ask(
        self,
        call: Call,
        upstream: tuple[str, str],
        body: bytes,
        *,
        droppable: Sequence[str] = (),
        usage: bool = True,
        max_tokens: int = 0,
    ) -> OtherQuestion:
        """`upstream`: name and family; `usage`: its streams may be asked for usage; `max_tokens`: what its model can
        make at most, where that is known. Raises BadBody, Untranslatable.
        """
        ...
