"""`python -m tests.bench`: what a call costs, beside nginx and others. See README.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench import endurance, load, machine, report
from tests.bench.slices import PHASES, run_phase
from tests.bench.targets import Rig

RESULTS = Path(__file__).parent / "results.md"
PEERS = {"portkey": "BENCH_PORTKEY", "litellm": "BENCH_LITELLM", "litellm granian": "BENCH_LITELLM"}
QUICKER = 0.5  # length of a slice
LONG = ("ready", "memory", "recorder", "bursts", "scrapes")
MISSED, REGRESSED = 1, 2  # exit status


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    names = [phase.name for phase in PHASES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="less of everything, in under a minute")
    size.add_argument("--thorough", action="store_true", help="more repetitions")
    parser.add_argument("--only", nargs="+", choices=[*names, *LONG], metavar="NAME", help=", ".join([*names, *LONG]))
    parser.add_argument("--calls", type=int, help="of the memory run (200,000)")
    parser.add_argument("--recorder-seconds", type=float, help="of the recorder run (60)")
    parser.add_argument("--gateway-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1 if (os.cpu_count() or 1) > 1 else 0)
    parser.add_argument(
        "--max-noise",
        type=float,
        default=0.1,
        help="share of the core lost to others above which a slice is taken again",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where the results go ({RESULTS.name} beside this program, but for --quick and --only)",
    )
    parser.add_argument("--save-baseline", action="store_true")
    parser.add_argument(
        "--strict", action="store_true", help=f"exit with {MISSED} for a missed target, {REGRESSED} for a regression"
    )
    return parser.parse_args(words)


def chosen(options: argparse.Namespace) -> list[str]:
    if options.only:
        return list(options.only)
    found = [phase.name for phase in PHASES if phase.name != "peers"]
    if any(os.environ.get(name) for name in PEERS.values()):
        found.append("peers")
    return [*found, *LONG]


def wanted_targets(names: Sequence[str]) -> list[str]:
    """Those that the chosen phases need and that are installed."""
    wanted = dict.fromkeys(name for phase in PHASES if phase.name in names for name in phase.targets)
    return [name for name in wanted if name not in PEERS or Path(os.environ.get(PEERS[name], "")).is_file()]


def main() -> int:
    options = arguments()
    names = chosen(options)
    size = 0 if options.quick else 2 if options.thorough else 1
    rows: dict[str, report.Rows] = {}
    lines: list[report.Line] = []
    load.build()
    with Rig(wanted_targets(names), options.gateway_core, options.load_core) as rig:
        for name, why in rig.left_out.items():
            print(f"left out: {name}: {why}", file=sys.stderr)
        for phase in (each for each in PHASES if each.name in names):
            seconds = phase.seconds * (QUICKER if options.quick else 1)
            max_noise = 1.0 if options.quick else options.max_noise
            rows[phase.name] = run_phase(rig, replace(phase, seconds=seconds), phase.cycles[size], max_noise)
            lines += report.LINES[phase.name](rows[phase.name])
        calls = options.calls or (20_000, 200_000, 200_000)[size]
        seconds = options.recorder_seconds or (4.0, 60.0, 60.0)[size]
        long: dict[str, Callable[[], Iterable[report.Line]]] = {
            "ready": lambda: report.ready_lines(endurance.ready(rig, (3, 5, 9)[size])),
            "memory": lambda: report.memory_lines(endurance.memory(rig, calls)),
            "recorder": lambda: report.recorder_lines(endurance.recorder(rig, seconds)),
            "bursts": lambda: report.burst_lines(endurance.bursts(rig, (4.0, 20.0, 45.0)[size])),
            "scrapes": lambda: report.scrape_lines(endurance.scrapes(rig, (3, 5, 7)[size], (250, 250, 400)[size])),
        }
        for name in LONG:
            if name in names:
                print(f"  {name} ...", file=sys.stderr, flush=True)
                lines += long[name]()
    return told(options, lines, rows)


def told(options: argparse.Namespace, lines: list[report.Line], rows: dict[str, report.Rows]) -> int:
    print(report.targets_table(lines))
    out = options.out or (RESULTS if not options.quick and not options.only else None)
    if out is not None:
        out.write_text(report.document(lines, rows, machine.facts(), "make bench"))
    worse = report.regressions(lines)
    for text in worse:
        print(f"REGRESSION {text}")
    if options.save_baseline:
        report.write_baseline(lines)
    missed = any(line.bound is not None and not line.reaches(line.bound) for line in lines)
    if not options.strict:
        return 0
    return REGRESSED if worse else MISSED if missed else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            sys.exit(main())
        except load.BenchFailed as fault:
            sys.exit(f"bench: {fault}")
