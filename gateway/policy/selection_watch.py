"""What became of calls that a choice is learned from: which sign belongs to which, and when it is a label. Pure.

Rules
1. A report on a run is about all its calls: each is a label of the score reported, together they weigh as one. The
   last report counts, and calls that end after it are labels, too.
2. Without a report, signs make a label `PATIENCE` after the call, so that a report that still comes is not forestalled:
   the answer broke its schema, its tools failed, the client asked the same again (see selection_labels). A report that
   comes later amends it.
3. A call that brought no answer of the model is no evidence of it: that is the breakers' matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from gateway.policy.selection_fit import Label
from gateway.policy.selection_labels import Signs, Verdict, verdict

PATIENCE = 600 * 10**9  # ns from the end of a call, until its signs are all there is
AGAIN = 300 * 10**9  # ns within which the same request is asked again, rather than anew
KEPT_FOR = 24 * 3600 * 10**9  # ns that a call waits for a report
MOST = 20_000  # calls, and reports, that are waited on


class Outcome(Struct, frozen=True, array_like=True):
    """One call that has ended with an answer."""

    id: str
    scope: str
    arm: str
    run: str
    at: int  # ns since the epoch, of its end
    seen: bytes  # selection_wire
    size: int  # bytes of the request
    uses: tuple[str, ...] = ()  # ids of the tools that it called
    valid: bool | None = None  # it kept to the schema that was asked for
    agreed: bool | None = None  # it was asked in the background, and said what another target said


class Entry(Struct):
    """A call and what is known of it. `score`: -1 until it is a label."""

    call: Outcome
    retried: bool = False
    tools: int = 0
    tool_errors: int = 0
    reported: float | None = None
    score: float = -1.0
    weight: float = 0.0
    label: Label | None = None  # what was learned of it

    @property
    def signs(self) -> Signs:
        agreed = None if self.call.agreed is None else float(self.call.agreed)
        return Signs(self.reported, self.call.valid, self.retried, self.tools, self.tool_errors, agreed)


class Result(Struct, frozen=True):
    """What a request brought of a tool that an earlier call of its run had called."""

    id: str
    is_error: bool


class Watch:
    """`changed`: entries since it was last emptied, by id; those with a score are labels."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._young: deque[Entry] = deque()  # in the order of their end
        self._old: deque[Entry] = deque()  # whose signs were taken
        self._runs: dict[str, list[Entry]] = {}
        self._reports: dict[str, float] = {}
        self.changed: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def restore(self, entries: Sequence[Entry]) -> None:
        """What was known before a restart, in order."""
        for entry in entries:
            self._put(entry)

    def end(self, call: Outcome, results: Sequence[Result]) -> list[Entry]:
        """A call has ended; entries that are labels now, or other ones than before."""
        if call.id in self._ids:
            return []  # read again
        self._signs(call, results, self._runs.get(call.run, ()) if call.run else ())
        entry = Entry(call)
        found = self._put(entry)
        self.changed[call.id] = entry
        found += self.settle(call.at)
        if call.agreed is not None:
            return found + self._by_signs(entry)  # of no run: nothing came of what it said
        score = self._reports.get(call.run)
        return found + self._report(call.run, score) if score is not None else found

    def report(self, run: str, score: float) -> list[Entry]:
        """What a run achieved, from 0 to 1."""
        self._reports.pop(run, None)
        self._reports[run] = score
        if len(self._reports) > MOST:
            del self._reports[next(iter(self._reports))]
        return self._report(run, score)

    def settle(self, now: int) -> list[Entry]:
        """Entries that are labels by now, as nothing more is waited for."""
        found: list[Entry] = []
        while self._young and now - self._young[0].call.at >= PATIENCE:
            entry = self._young.popleft()
            self._old.append(entry)
            found += self._by_signs(entry)
        while self._old and now - self._old[0].call.at > KEPT_FOR:
            self._drop(self._old.popleft())
        return found

    def _put(self, entry: Entry) -> list[Entry]:
        """Those that it drove out, and which are labels therefore."""
        call = entry.call
        self._ids.add(call.id)
        self._young.append(entry)
        if call.run:
            self._runs.setdefault(call.run, []).append(entry)
        if len(self._ids) <= MOST:
            return []
        oldest = (self._old or self._young).popleft()
        self._drop(oldest)
        return self._by_signs(oldest)

    def _by_signs(self, entry: Entry) -> list[Entry]:
        return [entry] if entry.score < 0 and self._judge(entry, verdict(entry.signs), 1) else []

    def _drop(self, entry: Entry) -> None:
        call = entry.call
        self._ids.discard(call.id)
        if run := self._runs.get(call.run):
            run[:] = [one for one in run if one is not entry]
            if not run:
                del self._runs[call.run]

    def _signs(self, call: Outcome, results: Sequence[Result], before: Sequence[Entry]) -> None:
        """What this request says of the answers before it."""
        for entry in before:
            brought = [result for result in results if result.id in entry.call.uses]
            if brought:
                entry.tools += len(brought)
                entry.tool_errors += sum([result.is_error for result in brought])
                self.changed[entry.call.id] = entry
        last = before[-1] if before else None
        if last is not None and _same(last.call, call):
            last.retried = True
            self.changed[last.call.id] = last

    def _report(self, run: str, score: float) -> list[Entry]:
        entries = self._runs.get(run, [])
        for entry in entries:
            entry.reported = score
        return [entry for entry in entries if self._judge(entry, verdict(entry.signs), len(entries))]

    def _judge(self, entry: Entry, found: Verdict | None, shared: int) -> bool:
        """Is it another label than before?"""
        if found is None or (found.score, found.weight / shared) == (entry.score, entry.weight):
            return False
        entry.score, entry.weight = found.score, found.weight / shared
        self.changed[entry.call.id] = entry
        return True


def _same(before: Outcome, call: Outcome) -> bool:
    """Is it the same request once more?"""
    same = (before.scope, before.seen, before.size) == (call.scope, call.seen, call.size)
    return same and 0 <= call.at - before.at < AGAIN
