"""What a translation cannot carry: named, refused, or left out where the operator says so.

Rules
1. Every member of a request is taken by its reader or lost; `Fields.end` says which ones were not taken.
2. null, "" and [] say nothing and are not lost. An empty object may: `{"googleSearch": {}}` asks for a search.
3. Fields are named as the client wrote them (`messages[3].name`); `droppable` lists them without positions
   (`messages[].name`). A listed field stands for all that is in it.
4. Everything that is lost is gathered, so that one refusal names all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.dialects.lowering import EFFORTS
from gateway.dialects.translate.neutral import Setting
from gateway.errors import BadBody, Untranslatable

_POSITION = re.compile(r"\[\d+\]")
_EMPTY: tuple[Any, ...] = (None, [], "")
NAMED = 8  # fields that a refusal names
LARGEST = 2**53  # numbers beyond are not the same to every parser


def bare(field: str) -> str:
    """The name of a field without positions."""
    return _POSITION.sub("[]", field)


class Losses:
    """Gathers what cannot be carried."""

    def __init__(self, droppable: Iterable[str] = ()) -> None:
        self._droppable = frozenset(droppable)
        self.lost: dict[str, str] = {}  # field -> why
        self.dropped: list[str] = []

    def lose(self, field: str, why: str = "") -> None:
        known = bare(field)
        ends = (match.start() for match in re.finditer(r"[.\[]", known))
        if known in self._droppable or any(known[:end] in self._droppable for end in ends):
            if known not in self.dropped:
                self.dropped.append(known)
        else:
            self.lost.setdefault(field, why)

    def check(self) -> None:
        """Raises Untranslatable where something was lost that may not be."""
        if not self.lost:
            return
        first = next(iter(self.lost))
        named = ", ".join(f"'{field}'{f' ({why})' if why else ''}" for field, why in list(self.lost.items())[:NAMED])
        more = f" and {len(self.lost) - NAMED} more" if len(self.lost) > NAMED else ""
        raise Untranslatable(
            f"The upstream of this model speaks another API, which cannot say {named}{more}.", param=first
        )


class Fields:
    """An object of a request, each of whose members must be taken."""

    __slots__ = ("_left", "at", "losses")

    def __init__(self, value: Any, at: str, losses: Losses) -> None:
        if type(value) is not dict:
            raise BadBody(f"'{at or 'body'}' must be an object.", param=at or None)
        self.at = at
        self.losses = losses
        self._left = self.named(value)

    def named(self, value: dict[str, Any]) -> dict[str, tuple[str, Any]]:
        """name -> (as written, value)"""
        return {name: (name, found) for name, found in value.items() if found is not None}

    def path(self, name: str) -> str:
        written = self._left.get(name, (name, None))[0]
        return f"{self.at}.{written}" if self.at else written

    def has(self, name: str) -> bool:
        return name in self._left

    def bad(self, name: str, wanted: str) -> BadBody:
        path = self.path(name)
        return BadBody(f"'{path}' must be {wanted}.", param=path)

    def take(self, name: str) -> Any:
        """The value; None where there is none."""
        return self._left.pop(name, (name, None))[1]

    def peek(self, name: str) -> Any:
        return self._left.get(name, (name, None))[1]

    def text(self, name: str, default: str = "") -> str:
        value = self.peek(name)
        if value is None:
            return default
        if type(value) is not str:
            raise self.bad(name, "a string")
        self.take(name)
        return value

    def number(self, name: str) -> float | int | None:
        value: float | int | None = self.peek(name)
        if value is not None and (type(value) not in (int, float) or not abs(value) <= LARGEST):
            raise self.bad(name, "a number")
        self.take(name)
        return value

    def integer(self, name: str) -> int | None:
        value: int | None = self.peek(name)
        if value is not None and (type(value) is not int or not abs(value) <= LARGEST):
            raise self.bad(name, "an integer")
        self.take(name)
        return value

    def flag(self, name: str) -> bool | None:
        value = self.peek(name)
        if value is not None and type(value) is not bool:
            raise self.bad(name, "true or false")
        self.take(name)
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        """A list of strings, or one string."""
        value = self.peek(name)
        found = [] if value is None else value if type(value) is list else [value]
        if any(type(item) is not str for item in found):
            raise self.bad(name, "a list of strings")
        self.take(name)
        return tuple(found)

    def mapping(self, name: str) -> dict[str, Any] | None:
        """An object taken as it is."""
        value = self.peek(name)
        if value is not None and type(value) is not dict:
            raise self.bad(name, "an object")
        self.take(name)
        return value

    def within(self, name: str) -> Fields | None:
        """An object whose members must be taken in turn."""
        if not self.has(name):
            return None
        path = self.path(name)
        return type(self)(self.take(name), path, self.losses)

    def each(self, name: str) -> Iterator[Fields]:
        """The objects of a list, in the same way."""
        path, value = self.path(name), self.peek(name)
        if value is not None and type(value) is not list:
            raise self.bad(name, "a list")
        self.take(name)
        for index, item in enumerate(value or ()):
            yield type(self)(item, f"{path}[{index}]", self.losses)

    def ignore(self, *names: str) -> None:
        """What has no meaning to any other provider."""
        for name in names:
            self.take(name)

    def lose(self, name: str, why: str = "") -> None:
        if self.peek(name) not in _EMPTY:
            self.losses.lose(self.path(name), why)
        self.take(name)

    def end(self) -> None:
        for name in list(self._left):
            self.lose(name)


class Settings:
    """The settings of a question, each of which a writer must take."""

    def __init__(self, settings: Mapping[str, Setting], losses: Losses) -> None:
        self._left = dict(settings)
        self._all = settings
        self.losses = losses

    def take(self, name: str) -> Any:
        found = self._left.pop(name, None)
        return None if found is None else found.value

    def has(self, name: str) -> bool:
        return name in self._all

    def lose(self, name: str, why: str = "") -> None:
        """It was taken, but its value cannot be said."""
        self.losses.lose(self._all[name].field, why)

    def effort(self) -> str | None:
        """A word for how much to think; one that is a single provider's own is lost."""
        word: str | None = self.take("effort")
        if word is not None and word not in EFFORTS:
            self.lose("effort", word)
            return None
        return word

    def end(self) -> None:
        for setting in self._left.values():
            if not setting.hint:
                self.losses.lose(setting.field)
