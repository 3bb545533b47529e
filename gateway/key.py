"""A virtual key: who may call, on whose account, and what. The secret itself is nowhere but with its owner.

A pattern is a name in which * stands for any characters. What no pattern of a right means is not allowed: no patterns,
nothing. Times are ns since the epoch, 0 where there is none; money is nano-USD.
"""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

OPERATIONS = frozenset(
    (
        "chat",
        "text_completion",
        "generate_content",
        "embeddings",
        "rerank",
        "fetch_response",
        "models",  # lists of models
        "count_tokens",
        "execute_tool",  # of the tools and MCP servers that are configured here
    )
)
"""What a key may do unless told otherwise: everything whose tokens the gateway counts, and what costs nothing."""
UNREAD = frozenset(("batches", "other"))
"""What must be granted by name: the gateway does not look into it, and cannot tell what it costs."""
ANY = "*"

Per = Literal["minute", "hour", "day", "week", "month", "life"]


class KeyBudget(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A budget that came with the key; it holds beside those of the configuration."""

    usd: int | None = None
    tokens: int | None = None
    per: Per = "month"
    rolling: bool = False


class Key(Struct, frozen=True, omit_defaults=True):
    id: str  # not secret: what stands in records, and between the dashes of the secret
    name: str = ""  # for people and for `match`; unique
    team: str = ""  # the tenant of its calls
    digest: bytes = b""  # keyed, of the whole secret
    created_at: int = 0
    expires_at: int = 0
    disabled_at: int = 0
    models: tuple[str, ...] = (ANY,)  # as asked for, or as an alias has it
    upstreams: tuple[str, ...] = (ANY,)
    tools: tuple[str, ...] = (ANY,)  # that a request may declare or call, by name; of an MCP server also server/name
    operations: tuple[str, ...] = tuple(sorted(OPERATIONS))
    budgets: tuple[KeyBudget, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    burst: int | None = None
    may_limit_runs: bool = True  # its calls may set a budget for their run, which only ever tightens
    parent: str = ""  # id of the key whose rights it stays within
    metadata: dict[str, str] = {}
    old_digest: bytes = b""  # of the secret before the last rotation,
    old_until: int = 0  # which is good until then
    revision: int = 0  # of the store, when it was last changed
    above: tuple[Key, ...] = ()  # those it was made under, the nearest first; known in memory alone

    @property
    def prefix(self) -> str:
        """How its secret begins: enough to recognise it, and no help to guess it."""
        return f"tg-{self.id}-"

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.name!r})"


class Keys(Protocol):
    """A port (see gateway.ports): all keys, in memory. `required`: a call without one is refused; see policy.keys."""

    required: bool

    def find(self, presented: bytes) -> Key | None:
        """The key of this secret, be it usable or not. The same work whatever is presented."""
        ...
