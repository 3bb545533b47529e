"""What is remembered to join the calls of a run, in a bounded table of small entries (`ports.Links`). Pure.

Two kinds of entries, both under keys that only the gateway can make (keyed with a secret, the tenant and a hash of the
client's credential, so that tenants never share evidence):

* A *thread* is one agent instance within a run: run id, agent name, steps so far, last use.
* A *lead* points from a piece of evidence (an answer within its history, a tool-call id, a response id, ...) to a
  thread. Several threads may leave the same evidence, so a key holds a list of leads: one page of seven, and once that
  is full eight further pages, each giving up its oldest lead.

Keys that are short and cannot be confused are put together, not hashed. Beside these entries there is one per scope:
when a call of it failed last, so that requests are compared with failed ones only where there is one.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from struct import Struct as Layout
from struct import error as LayoutError

from msgspec import Struct, structs

from gateway.ports import Links

REF = 8
PAGE = 7
SPILL_PAGES = 8
TICK_BITS = 20  # times are counted in ticks of 2**20 ns (about 1 ms), modulo 2**32 (52 days)
_TICKS = 1 << 32
_LEAD = Layout("<8sQIHBBHH")
_THREAD = Layout("<IIB")
_FULL = PAGE * _LEAD.size
_SPILLED = [b"P%c" % page for page in range(SPILL_PAGES)]

pack_lead = _LEAD.pack  # the fields of a Lead in their order
FAILED = 1  # flag of a lead: that call did not succeed, so the same request again is its retry
SHORT = 2  # flag of a lead: found by a text that others may have answered, too


def ticks(nanoseconds: int) -> int:
    return (nanoseconds >> TICK_BITS) % _TICKS


def age(now: int, at: int) -> int:
    """Ticks from `at` to `now`; clocks of workers differ a little, so the near future counts as now."""
    passed = (now - at) % _TICKS
    return passed if passed < _TICKS // 2 else 0


class Lead(Struct, frozen=True, gc=False):
    ref: bytes  # of the thread
    shape: int  # 32 bits over the system prompt, 32 over the first message
    at: int  # ticks
    step: int
    continued: int = 0  # how many retries have followed this lead
    flags: int = 0
    peer: int = 0  # 16 bits over the client's address and port
    length: int = 0  # messages in the history

    def pack(self) -> bytes:
        return pack_lead(self.ref, self.shape, self.at, self.step, self.continued, self.flags, self.peer, self.length)


class Thread(Struct, gc=False):
    run_id: str
    agent: str = ""
    steps: int = 0
    at: int = 0


_BLANK = blake2b(digest_size=16)  # copying it costs a third of making one


def digest(text: bytes) -> bytes:
    """Key of 16 bytes over parts whose boundaries are unambiguous (all but the last of fixed length)."""
    made = _BLANK.copy()
    made.update(text)
    return made.digest()


class Memory:
    """Threads and leads of one table. `scope` is the secret prefix of a tenant and credential, of fixed length."""

    def __init__(self, links: Links) -> None:
        self._get = links.get
        self._put = links.put
        self._update = links.update

    def thread(self, scope: bytes, ref: bytes) -> Thread | None:
        value = self._get(scope + ref)
        if value is None:
            return None
        try:
            at, steps, length = _THREAD.unpack_from(value)
            run_id, agent = value[_THREAD.size :][:length].decode(), value[_THREAD.size + length :].decode()
        except (LayoutError, UnicodeDecodeError):
            return None
        return Thread(run_id, agent, steps, at)

    def keep_thread(self, scope: bytes, ref: bytes, thread: Thread) -> None:
        run_id = thread.run_id.encode()
        head = _THREAD.pack(thread.at, min(thread.steps, _TICKS - 1), len(run_id))
        self._put(scope + ref, head + run_id + thread.agent.encode())

    def failed(self, scope: bytes, at: int) -> None:
        self._put(scope + b"F", at.to_bytes(4, "little"))

    def failed_since(self, scope: bytes, now: int, ticks: int) -> bool:
        """Did a call of this scope fail within the last `ticks`?"""
        value = self._get(scope + b"F")
        return value is not None and age(now, int.from_bytes(value[:4], "little")) <= ticks

    def leads(self, key: bytes) -> list[Lead]:
        """All leads of a key, oldest first within each page."""
        value = self._get(key)
        if value is None:
            return []
        found = _read(value)
        if len(value) >= _FULL:
            for page in range(SPILL_PAGES):
                spilled = self._get(_spill(key, page))
                if spilled is not None:
                    found += _read(spilled)
        return found

    def add(self, key: bytes, ref: bytes, packed: bytes) -> None:
        """Remember a packed lead to the thread `ref`; an older one of it under this key gives way."""
        spilled = False

        def page(value: bytes | None) -> bytes | None:
            nonlocal spilled
            if value is None:
                return packed
            value = _without(value, ref)
            spilled = len(value) >= _FULL
            return None if spilled else value + packed

        self._update(key, page)
        if spilled:
            self._update(_spill(key, ref[0] % SPILL_PAGES), partial(_push, ref, packed))

    def follow(self, key: bytes, lead: Lead) -> None:
        """Count one more retry that followed this lead."""
        followed = structs.replace(lead, continued=min(lead.continued + 1, 255)).pack()
        full = False

        def page(value: bytes | None) -> bytes | None:
            nonlocal full
            value = _whole(value or b"")
            at = _place(value, lead.ref)
            full = at < 0 and len(value) >= _FULL
            if at < 0:
                return None
            return value[:at] + followed + value[at + _LEAD.size :]

        self._update(key, page)
        if full:
            self._update(_spill(key, lead.ref[0] % SPILL_PAGES), page)


def _push(ref: bytes, packed: bytes, value: bytes | None) -> bytes:
    """A further page with this lead at its end, without its oldest one if it is full."""
    value = _without(value, ref) if value else b""
    return (value[_LEAD.size :] if len(value) >= _FULL else value) + packed


def _read(value: bytes) -> list[Lead]:
    return [Lead(*fields) for fields in _LEAD.iter_unpack(_whole(value))]


def _whole(value: bytes) -> bytes:
    """The leads of a page; what is left over belongs to no lead."""
    rest = len(value) % _LEAD.size
    return value[:-rest] if rest else value


def _place(value: bytes, ref: bytes) -> int:
    """Offset of the lead of a thread, or -1."""
    at = value.find(ref)
    while at >= 0 and at % _LEAD.size:
        at = value.find(ref, at + 1)
    return at


def _without(value: bytes, ref: bytes) -> bytes:
    """The whole leads of a page, but the one of this thread."""
    if len(value) % _LEAD.size:
        value = _whole(value)
    at = _place(value, ref)
    return value if at < 0 else value[:at] + value[at + _LEAD.size :]


def _spill(key: bytes, page: int) -> bytes:
    return key + _SPILLED[page]
