"""Tool executions seen in LLM traffic: a tool call of an answer, and its result in a later request. Pure.

Rules
1. A use is remembered under the agent that was answered, with the moment its answer ended; the result is looked for
   under the same agent. The time between is an upper bound of the execution: the client may have waited, too.
2. A result pairs once. The history repeats old results with every call, so only those behind the last turn of the
   assistant count, and what was paired is marked.
3. Gemini gives calls no ids: the uses of one answer are counted per name, and so are their results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from struct import Struct as Layout
from struct import error as LayoutError

from gateway.call import ToolCall, ToolResult, ToolUse
from gateway.policy.identity_links import digest
from gateway.ports import Links

NAME_BYTES = 128
_USE = Layout("<QB")


class ToolMemory:
    """`scope` and `ref` name the agent (see identity_links); times are nanoseconds since the epoch."""

    def __init__(self, links: Links) -> None:
        self._get = links.get
        self._put = links.put

    def asked(self, scope: bytes, ref: bytes, uses: Sequence[ToolUse], ended_at: int) -> None:
        """An answer that ended at `ended_at` asked for these tools."""
        for use, label in zip(uses, _labels([(use.id, use.name) for use in uses]), strict=True):
            key = digest(b"%bU%b%b" % (scope, ref, label))
            self._put(key, _USE.pack(ended_at, False) + use.name.encode("utf-8", "replace")[:NAME_BYTES])

    def answered(
        self, scope: bytes, ref: bytes, results: Sequence[ToolResult], now: int, durations: Mapping[str, Sequence[int]]
    ) -> list[ToolCall]:
        """The executions whose results came in at `now`. `durations`: ms per tool name, where the client reports it."""
        found = []
        reported = {name: iter(values) for name, values in durations.items()}
        labels = _labels([(result.id, result.name) for result in results])
        for result, label in zip(results, labels, strict=True):
            use = self._take(digest(b"%bU%b%b" % (scope, ref, label)))
            if use is None:
                continue
            ended_at, name = use
            exact = next(reported.get(name, iter(())), None)
            passed = max(0, now - ended_at) if exact is None else exact * 1_000_000
            identifier = result.id or f"{label.decode('utf-8', 'replace')}@{ended_at}"
            found.append(ToolCall(identifier, name, ended_at, passed, exact is not None, result.is_error))
        return found

    def _take(self, key: bytes) -> tuple[int, str] | None:
        """The use under this key, unless it was paired before; marks it as paired."""
        value = self._get(key)
        if value is None:
            return None
        try:
            ended_at, paired = _USE.unpack_from(value)
        except LayoutError:
            return None
        if paired:
            return None
        name = value[_USE.size :]
        self._put(key, _USE.pack(ended_at, True) + name)
        return ended_at, name.decode("utf-8", "replace")


def _labels(calls: Sequence[tuple[str, str]]) -> list[bytes]:
    """What tells the calls of one answer apart: `=id`, or `name/1`, `name/2`, ... for those without."""
    seen: Counter[str] = Counter()
    labels = []
    for identifier, name in calls:
        seen[name] += not identifier
        labels.append((f"={identifier}" if identifier else f"{name}/{seen[name]}").encode("utf-8", "replace"))
    return labels
