"""The cache through the API: what is in it, and how it is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.call import Answer
from gateway.ports import Entry
from gateway.stores.sqlite_cache import SqliteCache
from gateway.testing.doubles import at_once

NOW = 1_790_000_000_000_000_000


@pytest.fixture
def fill(tmp_path: Path) -> Any:
    def fill_(*tenants: str) -> None:
        store = SqliteCache(tmp_path / "cache.sqlite", memory_bytes=0, tenant_bytes=10**6)
        for number, tenant in enumerate(tenants):
            key = number.to_bytes(32, "big")
            _, generation = at_once(store.get(key, "", NOW))
            store.put(
                Entry(
                    key, tenant, NOW, NOW + 10**15, False, True, b"application/json", b"", b"{}", Answer(), 1,
                    "/r", "u", "m", "a", ("red",),
                ),
                generation,
            )  # fmt: skip
        store.close()

    return fill_


async def test_an_empty_cache(gate: Any) -> None:
    assert await gate.get("/api/cache") == {"entries": 0, "bytes": 0, "hits": 0, "groups": []}
    assert await gate.send("DELETE", "/api/cache", 200) == {"cleared": 0}


async def test_what_is_in_it_and_how_it_is_forgotten(gate: Any, fill: Any) -> None:
    fill("a", "a", "b")
    found = await gate.get("/api/cache")
    assert found["entries"] == 3
    assert [(group["tenant"], group["entries"]) for group in found["groups"]] == [("a", 2), ("b", 1)]
    assert await gate.send("DELETE", "/api/cache?tenant=b&tag=red", 200) == {"cleared": 1}
    assert await gate.send("DELETE", "/api/cache?tag=blue", 200) == {"cleared": 0}
    assert await gate.send("DELETE", "/api/cache", 200) == {"cleared": 2}
    assert gate.events[0] == ("cache_cleared", {"entries": 1, "tenant": "b", "tag": "red"})
    assert len(gate.events) == 3


async def test_outputs_are_forgotten_by_tool(gate: Any, tmp_path: Path) -> None:
    store = SqliteCache(tmp_path / "cache.sqlite", memory_bytes=0, tenant_bytes=10**6)
    for number, (route, upstream) in enumerate((("/tools/{tool}", "tools/t"), ("/mcp/{server}", "mcp/s"), ("/r", "u"))):
        key = number.to_bytes(32, "big")
        _, generation = at_once(store.get(key, "", NOW))
        entry = Entry(
            key, "a", NOW, NOW + 10**15, False, True, b"application/json", b"", b"{}", Answer(), 1,
            route, upstream, "t", "a",
        )  # fmt: skip
        store.put(entry, generation)
    store.close()
    assert await gate.send("DELETE", "/api/cache?tool=s/t", 200) == {"cleared": 1}
    assert await gate.send("DELETE", "/api/cache?tool=t&tenant=a", 200) == {"cleared": 1}
    assert (await gate.get("/api/cache"))["entries"] == 1
    assert gate.events == [
        ("cache_cleared", {"entries": 1, "tool": "s/t"}),
        ("cache_cleared", {"entries": 1, "tool": "t", "tenant": "a"}),
    ]


async def test_what_is_not_understood_clears_nothing(gate: Any, fill: Any) -> None:
    fill("a")
    await gate.send("DELETE", "/api/cache?tenants=a", 400)
    await gate.get("/api/cache?x=1", 400)
    assert (await gate.get("/api/cache"))["entries"] == 1


async def test_a_file_that_cannot_be_used(gate: Any, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").mkdir()
    assert (await gate.get("/api/cache", 503))["code"] == "cache_unavailable"
    assert (await gate.send("DELETE", "/api/cache", 503))["code"] == "cache_unavailable"
    assert gate.events == []
