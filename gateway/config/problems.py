"""What is wrong with a configuration, said so that it can be mended: where, what was expected, what was found.

Rules
1. No value that may be a secret is ever shown: numbers and short words are, other strings only by their length. A key
   of a mapping is, unless it looks like a provider's key that slipped into the wrong place.
2. All problems are collected; the first is not the last.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

Path = tuple[str, ...]
"""Keys from the root of the file: ("upstreams", "openai", "url"); positions in a list are digits."""

SHOWN_CHARS = 12  # shorter than any provider's key or an allowed admin token
_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")
_CREDENTIAL = re.compile(r"\b(?:(?:sk|pk|tg|gsk|xai|hf|pplx|r8|ghp|key)[-_]|AIza|AKIA|eyJ|Bearer )\S{10}")


class Problem(Struct, frozen=True):
    """One finding. `reason` says it in words where "expected, got" does not fit; `line` counts from 1, 0 if unknown."""

    path: Path = ()
    expected: str = ""
    got: str = ""
    reason: str = ""
    hint: str = ""
    source: str = ""  # file name, environment variable or option
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        text = self.reason or f"expected {self.expected}" + (f", got {self.got}" if self.got else "")
        parts = [part for part in (place, dotted(self.path), text) if part]
        return ": ".join(parts) + (f"; {self.hint}" if self.hint else "")


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds every finding, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda p: (p.source, p.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Sequence[str]) -> str:
    """`upstreams.openai.url`; keys that are not plain words are quoted: `aliases."gpt-5.6".model`."""
    return ".".join(map(_element, path))


def _element(key: str) -> str:
    if _CREDENTIAL.search(key):
        return f"({len(key)} characters)"
    return key if _PLAIN.match(key) else json.dumps(key, ensure_ascii=False)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, else the empty string."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else ""


def shown(value: object) -> str:
    """A found value as a message may show it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return f'"{value}"' if 0 < len(value) <= SHOWN_CHARS else f"a string of {len(value)} characters"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return type(value).__name__
