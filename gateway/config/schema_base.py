"""What every section of the configuration is made of; part of gateway.config.schema."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400, title="number of seconds")]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", title="name (letters, digits, . _ -)")]


class Config_(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: frozen, and no unknown field passes.

    `secret` names the fields whose values, and the values of whose entries, must never be shown; `repr` masks them.
    """

    secret: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = ", ".join(f"{name}={'***' if value and name in self.secret else repr(value)}" for name, value in fields)
        return f"{type(self).__name__}({shown})"
