"""What the admin API says of pools and overload; the fields are its contract."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class WorkerShare(Struct, kw_only=True):
    """What one worker has of a pool. Another worker's free places are not used."""

    worker: int
    in_flight: int
    waiting: int
    limit: Annotated[int, Meta(description="Places: its share of `max`, or less where the limit is adaptive.")]


class BulkheadView(Struct, kw_only=True):
    """One configured pool; where it is one for `each` of something, all of them together."""

    name: str
    each: str | None
    in_flight: Annotated[int, Meta(description="Calls that have a place, in all workers.")]
    waiting: Annotated[int, Meta(description="Calls that wait for one.")]
    limit: Annotated[int, Meta(description="Places now; with `each` of all the pools together.")]
    max: int
    queue: Annotated[int, Meta(description="Calls that may wait, in each worker.")]
    wait_seconds: float
    adaptive: bool
    refused: Annotated[
        dict[str, int],
        Meta(description="Calls that found no place, by reason: bulkhead_full, queue_timeout or deadline_unreachable."),
    ]
    workers: Annotated[
        list[WorkerShare], Meta(description="The same figures of each worker; they add up to those above.")
    ]


class BulkheadList(Struct, kw_only=True):
    """Pools in the order in which calls are matched with them."""

    bulkheads: list[BulkheadView]
    overload_level: Annotated[
        int, Meta(description="Of the worst worker: 0 none, 1 batch calls are refused, 2 interactive ones too, 3 all.")
    ]
