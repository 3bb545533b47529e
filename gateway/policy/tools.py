"""Tool executions seen in LLM traffic: a tool call of an answer, and its result in a later request. Pure.

Rules
1. A use is remembered under the agent that was answered, with the moment its answer ended; the result is looked for
   under the same agent. The time between is an upper bound of the execution: the client may have waited, too.
2. A result pairs once. The history repeats old results with every call, so only those behind the last turn of the
   assistant count, and what was paired is marked.
3. An execution that passed through this gate by itself (an HTTP tool, an MCP server) counts there, and only there: of
   the executions of one name in one run, each that ended between a use and its result takes the place of that pair.
   MCP clients that show a tool to the model as mcp__{server}__{name} mean {name}.
4. Gemini gives calls no ids: the uses of one answer are counted per name, and so are their results.
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
PASSED = 16  # executions of one name in one run that wait for their pair
EARLY_NS = 2_000_000_000  # an agent may run a tool before the answer that asks for it has ended
_USE = Layout("<QB")
_AT = Layout("<Q")
_SHOWN = "mcp__"  # begins the names under which some clients show the tools of MCP servers


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

    def passed(self, tenant: str, run_id: str, calls: Sequence[ToolCall]) -> None:
        """These executions passed through the gate."""
        for call in calls:
            key = passed_key(tenant, run_id, call.name)
            before = self._get(key) or b""
            self._put(key, before[-_AT.size * (PASSED - 1) :] + _AT.pack(call.started_at + call.duration_ns))

    def not_passed(self, tenant: str, run_id: str, pairs: Sequence[ToolCall], now: int) -> list[ToolCall]:
        """Those of the pairs whose execution did not pass through the gate."""
        return [pair for pair in pairs if not self._absorbed(passed_key(tenant, run_id, pair.name), pair, now)]

    def _absorbed(self, key: bytes, pair: ToolCall, now: int) -> bool:
        value = self._get(key)
        if not value or len(value) % _AT.size:
            return False
        times = [at for (at,) in _AT.iter_unpack(value)]
        for at in times:
            if pair.started_at - EARLY_NS <= at <= now:
                times.remove(at)
                self._put(key, b"".join(map(_AT.pack, times)))
                return True
        return False

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


def passed_key(tenant: str, run_id: str, name: str) -> bytes:
    """Not by the client's credential: it may be another one for its tools than for its models."""
    if name.startswith(_SHOWN):
        name = name.rpartition("__")[2] if name.count("__") < 2 else name.split("__", 2)[2]
    text = f"{len(tenant)}:{tenant}{len(run_id)}:{run_id}{name}"
    return digest(b"gated:" + text.encode("utf-8", "replace"))


def _labels(calls: Sequence[tuple[str, str]]) -> list[bytes]:
    """What tells the calls of one answer apart: `=id`, or `name/1`, `name/2`, ... for those without."""
    seen: Counter[str] = Counter()
    labels = []
    for identifier, name in calls:
        seen[name] += not identifier
        labels.append((f"={identifier}" if identifier else f"{name}/{seen[name]}").encode("utf-8", "replace"))
    return labels
