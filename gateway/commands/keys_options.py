"""The options of `tollgate keys`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Command = Callable[[argparse.Namespace], int]
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # is not generic when it runs
Add: TypeAlias = "Callable[[Parsers, str, Command, str], argparse.ArgumentParser]"


def add(group: Parsers, command: Command, add_: Add, state_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add create, list, rotate and disable; each is told by `options.action`."""
    create = add_(group, "create", command, "make a key and show its secret, this once")
    _rights(create)
    _limits(create)
    listing = add_(group, "list", command, "show all keys, without their secrets")
    rotate = add_(group, "rotate", command, "give a key another secret and show it, this once")
    rotate.add_argument("--overlap", default="0", metavar="TIME", help="how long the old secret stays good, as 1h")
    disable = add_(group, "disable", command, "refuse a key, and those made under it, for good")
    disable.add_argument("--reason", default="", metavar="TEXT", help="why, for the audit")
    for parser in (rotate, disable):
        parser.add_argument("name", metavar="KEY", help="its name or id")
    for action, parser in (("create", create), ("list", listing), ("rotate", rotate), ("disable", disable)):
        parser.add_argument("--json", action="store_true", help="JSON instead of text")
        parser.set_defaults(action=action)
        state_options(parser)


def _rights(create: argparse.ArgumentParser) -> None:
    create.add_argument("--name", default="", help="unique, for people and for `match`; default: its id")
    create.add_argument("--team", default="", help="that owns it: the tenant of its calls")
    for right, what in (
        ("model", "models, as asked for or as an alias has it"),
        ("upstream", "upstreams"),
        ("tool", "tools that a request may declare"),
        ("operation", "operations: chat, embeddings, ...; batches and other must be named"),
    ):
        text = f"allowed {what}; * is a wildcard; may be repeated, or hold a list with commas"
        create.add_argument(f"--{right}", action="append", metavar="PATTERN", help=text)
    create.add_argument("--expires", default="", metavar="WHEN", help="as 30d, 12h or 2027-01-31T00:00:00Z")
    create.add_argument("--parent", default="", metavar="NAME", help="one whose rights this stays within")
    create.add_argument("--meta", action="append", metavar="NAME=TEXT", help="anything worth knowing; may be repeated")


def _limits(create: argparse.ArgumentParser) -> None:
    create.add_argument(
        "--budget", action="append", metavar="AMOUNT/PER",
        help="as 20/month, 5/day, 1/rolling-hour, 100/life in USD, or 2000000tok/week; may be repeated",
    )  # fmt: skip
    for name, what in (
        ("rpm", "requests per minute"),
        ("tpm", "input and output per minute, in tokens"),
        ("concurrency", "calls at once"),
        ("burst", "requests at once"),
    ):
        create.add_argument(f"--{name}", type=int, metavar="N", help=what)
    create.add_argument("--no-run-limits", action="store_true", help="its calls may not set a budget for their run")
