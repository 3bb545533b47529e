"""Threads and leads: what is written is read back, lists stay bounded, and no entry outgrows the table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.identity_links import PAGE, SPILL_PAGES, Lead, Memory, Thread, age, digest, ticks
from gateway.testing.calls import MemoryLinks

SCOPE, KEY = b"s" * 16, b"k" * 16


def ref(number: int) -> bytes:
    return digest(b"%d" % number)[:8]


def lead(number: int, **facts: int) -> Lead:
    return Lead(ref(number), facts.pop("shape", 7), facts.pop("at", number), facts.pop("step", 1), **facts)


def add(memory: Memory, one: Lead) -> None:
    memory.add(KEY, one.ref, one.pack())


def test_a_thread_is_read_back_under_its_scope_only() -> None:
    memory = Memory(MemoryLinks())
    thread = Thread("run-1", "scout", 3, 77)
    memory.keep_thread(SCOPE, ref(1), thread)
    assert memory.thread(SCOPE, ref(1)) == thread
    assert memory.thread(b"t" * 16, ref(1)) is None
    assert memory.thread(SCOPE, ref(2)) is None


def test_the_longest_names_fit() -> None:
    memory = Memory(MemoryLinks())  # refuses values of more than 200 bytes
    thread = Thread("r" * 128, "a" * 63, 2**32 - 1, 2**32 - 1)
    memory.keep_thread(SCOPE, ref(1), thread)
    assert memory.thread(SCOPE, ref(1)) == thread


@given(
    st.builds(
        Lead,
        st.binary(min_size=8, max_size=8),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**16 - 1),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 2**16 - 1),
        st.integers(0, 2**16 - 1),
    )
)
def test_every_lead_is_read_back(one: Lead) -> None:
    memory = Memory(MemoryLinks())
    add(memory, one)
    assert memory.leads(KEY) == [one]


def test_a_thread_has_one_lead_per_key_the_latest() -> None:
    memory = Memory(MemoryLinks())
    for at in range(3):
        add(memory, lead(1, at=at))
    add(memory, lead(2))
    add(memory, lead(1, at=9))
    assert memory.leads(KEY) == [lead(2), lead(1, at=9)]


def test_many_threads_spill_to_further_pages() -> None:
    memory = Memory(MemoryLinks())
    for number in range(30):
        add(memory, lead(number))
    assert {one.ref for one in memory.leads(KEY)} == {ref(number) for number in range(30)}


def test_a_list_is_bounded_and_keeps_the_latest() -> None:
    links = MemoryLinks()
    memory = Memory(links)
    for number in range(5_000):
        add(memory, lead(number))
    found = memory.leads(KEY)
    assert len(found) == PAGE * (1 + SPILL_PAGES)
    assert lead(4_999) in found
    assert len(links.values) == 1 + SPILL_PAGES


def test_following_is_counted_wherever_the_lead_stands() -> None:
    memory = Memory(MemoryLinks())
    for number in range(30):
        add(memory, lead(number))
    for number in range(30):
        memory.follow(KEY, next(one for one in memory.leads(KEY) if one.ref == ref(number)))
    assert {one.continued for one in memory.leads(KEY)} == {1}
    memory.follow(KEY, lead(99_999))
    memory.follow(b"other", lead(1))
    assert {one.continued for one in memory.leads(KEY)} == {1}


def test_following_stops_counting_at_255() -> None:
    memory = Memory(MemoryLinks())
    add(memory, lead(1, continued=255))
    memory.follow(KEY, memory.leads(KEY)[0])
    assert memory.leads(KEY)[0].continued == 255


def test_age_runs_over_the_end_of_the_clock() -> None:
    assert age(5, 3) == 2
    assert age(1, 2**32 - 1) == 2
    assert age(3, 5) == 0, "the clock of another worker may be a little ahead"
    assert ticks(10**9) == 953
