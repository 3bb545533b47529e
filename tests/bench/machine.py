"""What the kernel says: CPU time and memory of processes, how busy a core is, what this machine is. Linux only."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
LIBRARIES = ("uvloop", "httptools", "msgspec", "orjson", "aiohttp")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, todo = [], [pid]
    while todo:
        found.append(pid := todo.pop())
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += map(int, children.read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time. Nanoseconds of the living threads, or ticks where those say more (threads that ended)."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks = (int(fields[11]) + int(fields[12])) / TICK
            threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
            exact = sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
            total += exact if exact > ticks - 0.05 else ticks
    return total


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory in MB (2**20): all of it, and what is the process's own (not of a file or shared)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss, own = (int(text.split(f"{name}:")[1].split()[0]) / 1024 for name in ("Rss", "Anonymous"))
    return rss, own


def pin(pids: Iterable[int], core: int) -> None:
    """Bind every thread of these processes to one core."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), {core})


def core_seconds(core: int) -> tuple[float, float]:
    """(busy, stolen by the hypervisor) of one core since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            fields = [int(field) / TICK for field in line.split()[1:]]
            return sum(fields[:3]) + sum(fields[5:7]), fields[7]
    raise SystemExit(f"there is no core {core}")


def load_average() -> float:
    """Processes that ran or wanted to, on average over the last minute."""
    return os.getloadavg()[0]


def speed(core: int) -> float:
    """CPU milliseconds of a fixed mix of hashing, dictionary work and system calls: how fast this core is now."""
    before, best = os.sched_getaffinity(0), 9e9
    os.sched_setaffinity(0, {core})
    try:
        with open("/dev/null", "wb", buffering=0) as null:
            for _ in range(2):
                began = time.thread_time()
                counts: dict[int, int] = {}
                hashlib.sha256(bytes(1 << 20)).digest()
                for number in range(20_000):
                    counts[number & 255] = counts.get(number & 127, 0) + 1
                for _ in range(4_000):
                    null.write(b"x")
                best = min(best, time.thread_time() - began)
    finally:
        os.sched_setaffinity(0, before)
    return best * 1e3


def facts() -> dict[str, str]:
    """What results depend on; no names of hosts or people."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    found = {
        "CPU": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
    }
    with contextlib.suppress(OSError):
        told = subprocess.run([nginx(), "-v"], capture_output=True, text=True, timeout=10).stderr
        found["nginx"] = told.strip().rpartition("/")[2]
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES}


def nginx() -> str:
    """Debian keeps it where only root looks."""
    return "/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else "nginx"
