"""The port of kept outputs of tools: what is asked of a tool, what of its answer is kept, how that is given again.

Part of `gateway.ports`, from where it is imported.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from gateway.call import Call


class Wanted(Struct, frozen=True):
    """What a call asks of a tool, apart from who asks and by which headers."""

    name: str  # of the tool
    lifetime: int  # ns that its outputs are given again; 0: never
    why: str = ""  # in one word: this call is none for the cache
    json: bytes = b""  # counts by its meaning
    plain: bytes = b""  # counts byte for byte
    session: str | None = None  # whose outputs are its own; None: there is none, or they are everybody's


class Outputs(Protocol):
    """How the outputs of one tool, or of one server of tools, are told apart, kept and given again. Pure."""

    counted: frozenset[bytes]
    """Headers, in lower case, that count here, though they change no answer of a model."""
    left: frozenset[bytes]
    """Headers that do not count here."""
    headed: bool
    """The header lines of an answer belong to it."""
    dated: bool
    """It is heard for how long an answer says that it is good."""

    def wanted(self, call: Call, body: bytes) -> Wanted:
        """`body`: of the request, decoded."""
        ...

    def session(self, call: Call) -> str:
        """The session of its client with the server; "" where there is none."""
        ...

    def kept(self, call: Call, kind: bytes, body: bytes) -> bytes | None:
        """What of a whole answer with status 200 is kept; None where there is nothing to keep. `kind`: content type."""
        ...

    def given(self, call: Call, kind: bytes, kept: bytes) -> tuple[bytes, bytes]:
        """Content type and body for a client that asks the same. `kind`: of the answer that was kept."""
        ...
