"""The text of the configuration file, read as YAML 1.2 (core schema) with the line of every key.

Rules
1. Plain scalars mean what YAML 1.2 says: `on`, `no` and `12:30` are strings, `0o17` is a number, dates are strings.
2. Keys are strings as written (`4.1: ...` is the key "4.1"); a key that stands twice in a mapping is a problem.
3. Work is bounded whatever the text: size, depth, and the number of values after aliases are expanded.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from msgspec import Struct, field

from gateway.config.problems import Path, Problem

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 100_000

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


class _Loader(yaml.SafeLoader):
    """Resolves nothing by itself, so that a plain scalar can be told from one with an explicit tag."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else STRING
        return MAPPING if kind is yaml.MappingNode else SEQUENCE


PLAIN = "plain"
STRING, MAPPING, SEQUENCE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))


class Document(Struct):
    """A parsed file: plain values, and the line (from 1) on which each key or item stands."""

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of the path or of its nearest ancestor in the file; 0 when nothing of it stands there."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 0


def parse(text: str, source: str) -> Document:
    """Never raises for what the text holds; problems are in the document, whose data is then what could be read."""
    document = Document()
    if len(text) > MAX_BYTES:
        document.problems.append(Problem(reason=f"larger than {MAX_BYTES} bytes", source=source))
        return document
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark else 0
        document.problems.append(Problem(reason=f"not valid YAML: {reason}", source=source, line=line))
        return document
    except (yaml.YAMLError, RecursionError):
        # a character YAML does not allow, or nesting beyond the stack; neither message is fit to show
        document.problems.append(Problem(reason="not valid YAML: forbidden character or nesting", source=source))
        return document
    if root is None or (isinstance(root, yaml.ScalarNode) and _scalar(root) is None):
        return document
    if not isinstance(root, yaml.MappingNode):
        document.problems.append(Problem(expected="a mapping of settings", source=source, line=1))
        return document
    document.data = _Reader(document, source).mapping(root, ())
    return document


class _Reader:
    """Turns nodes into values, once per place where an alias puts them."""

    def __init__(self, document: Document, source: str) -> None:
        self._document = document
        self._source = source
        self._left = MAX_VALUES

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._left -= 1
        if len(path) > MAX_DEPTH or self._left < 0:
            if self._left >= -1:  # say it once
                self._problem(node, path[:MAX_DEPTH], "nested too deep or too many values")
                self._left = min(self._left, -2)
            return None
        if node.tag not in (PLAIN, STRING, MAPPING, SEQUENCE):
            self._problem(node, path, "explicit YAML tags are not used here")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for position, item in enumerate(node.value):
                here = (*path, str(position))
                self._document.lines[here] = item.start_mark.line + 1
                items.append(self.value(item, here))
            return items
        return _scalar(node)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "a key must be a plain string")
                continue
            key = key_node.value
            here = (*path, key)
            if key in found:
                first = self._document.lines[here]
                self._problem(key_node, here, f"stands twice, first on line {first}")
                continue
            self._document.lines[here] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, here)
        return found

    def _problem(self, node: yaml.Node, path: Path, reason: str) -> None:
        line = node.start_mark.line + 1
        self._document.problems.append(Problem(path=path, reason=reason, source=self._source, line=line))


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    """A scalar by the core schema of YAML 1.2 (chapter 10.3.2); quoted and block scalars are strings."""
    text: str = node.value
    if node.tag != PLAIN:
        return text
    if _NULL.match(text):
        return None
    if _TRUE.match(text):
        return True
    if _FALSE.match(text):
        return False
    if _INT.match(text) and len(text) <= 64:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        return float(text.replace(".", "", 1).lower())
    return text
