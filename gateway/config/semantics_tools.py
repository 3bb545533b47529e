"""What tools and MCP servers must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.config.address import parse_url
from gateway.config.problems import Path, Problem
from gateway.config.public import host_fault
from gateway.config.schema import McpServer, Tool, ToolCache, ToolPrice

CLIENT = "client"  # the word of metrics and records for tools that agents run themselves
NAME_CHARS = 256
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_FIELD = re.compile(r"[^.\s]+(?:\.[^.\s]+)*\Z")
_PATTERN = re.compile(r"/[!-~]*\Z")
_UNUSABLE = re.compile(r"//|[?#\\\\]|\*\*(?!\Z)|[^/]\*\*|/\.{1,2}(?:/|\Z)|%2[ef]|%5c", re.IGNORECASE)


def faults(path: Path, tool: Tool | McpServer) -> Iterator[Problem]:
    """Every rule that one tool or server breaks."""
    if path[-1] == CLIENT:
        yield Problem(path, reason="this name stands for tools that agents run themselves", hint="choose another name")
    yield from _url((*path, "url"), tool.url, private=tool.allow_private)
    if tool.price is not None:
        yield from _price((*path, "price"), tool.price)
    yield from _paths(path, tool) if isinstance(tool, Tool) else _tools(path, tool)


def _tools(path: Path, server: McpServer) -> Iterator[Problem]:
    for field in ("allow", "deny"):
        for index, pattern in enumerate(getattr(server, field)):
            if not pattern or len(pattern) > NAME_CHARS or not pattern.isprintable():
                reason = f"must be 1 to {NAME_CHARS} printable characters"
                yield Problem((*path, field, str(index)), reason=reason)
    if not server.allow:
        yield Problem((*path, "allow"), reason="allows no tool")
    for name, price in server.prices.items():
        yield from _price((*path, "prices", name), price)
    if server.cache is None:
        return
    if not server.cache.tools:
        yield Problem((*path, "cache", "tools"), reason="names no tool")
    for name in server.cache.tools:
        if not name or len(name) > NAME_CHARS or not name.isprintable():
            yield Problem((*path, "cache", "tools", name), reason=f"must be 1 to {NAME_CHARS} printable characters")


def _paths(path: Path, tool: Tool) -> Iterator[Problem]:
    if not tool.methods:
        yield Problem((*path, "methods"), reason="allows no method")
    if not tool.paths:
        yield Problem((*path, "paths"), reason="allows no path", hint='"/**" allows every path below `url`')
    for index, pattern in enumerate(tool.paths):
        yield from _pattern((*path, "paths", str(index)), pattern)
    if tool.cache is not None:
        yield from _cache((*path, "cache"), tool, tool.cache)


def _pattern(path: Path, pattern: str) -> Iterator[Problem]:
    if not _PATTERN.match(pattern) or _UNUSABLE.search(pattern):
        reason = "a pattern begins with / and holds no empty or dot segments, no query, and ** at its very end only"
        yield Problem(path, reason=reason)


def _cache(path: Path, tool: Tool, cache: ToolCache) -> Iterator[Problem]:
    if not tool.read_only:
        hint = "`read_only: true` says that its calls change nothing"
        yield Problem(path, reason="only outputs of a tool that is `read_only` can be given again", hint=hint)
    if not {"GET", "POST"} & set(tool.methods):
        yield Problem(path, reason="only answers to GET and POST are kept, and the tool takes neither")
    for pattern in cache.paths:
        yield from _pattern((*path, "paths", pattern), pattern)


def _url(path: Path, url: str, *, private: bool) -> Iterator[Problem]:
    try:
        host = parse_url(url).hostname or ""
    except ValueError as reason:
        hint = "variables are read in secret fields only" if url.startswith("$") else ""
        yield Problem(path, reason=str(reason), hint=hint)
        return
    fault = host_fault(host, private=private)
    if fault:
        hint = "" if private else "`allow_private: true` allows private addresses for this origin"
        yield Problem(path, reason=f"the host is {fault}" if not fault.startswith("looks") else fault, hint=hint)


def _price(path: Path, price: ToolPrice) -> Iterator[Problem]:
    if price.unit_header is not None and price.unit_field is not None:
        yield Problem(path, reason="units are stated in a header or in a field, not in both")
    if price.unit_header is not None and not _HEADER.match(price.unit_header):
        yield Problem((*path, "unit_header"), reason="not a header name")
    if price.unit_field is not None and not _FIELD.match(price.unit_field):
        yield Problem((*path, "unit_field"), reason="names and numbers with dots between, as usage.credits")
    if price.max_units > 1 and price.unit_header is None and price.unit_field is None:
        yield Problem((*path, "max_units"), reason="nothing states units", hint="set `unit_header` or `unit_field`")
