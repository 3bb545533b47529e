"""The options of `tollgate limits`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gateway.commands.keys_options import Add, Command, Parsers

SCOPES = ("global", "team", "key", "agent", "model", "upstream")


def add(group: Parsers, command: Command, add_: Add, state_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add set, list and remove; each is told by `options.action`."""
    setting = add_(group, "set", command, "limit a scope from now on, in place of what was set for it before")
    setting.add_argument(
        "--budget", action="append", metavar="AMOUNT/PER",
        help="as 20/month, 5/day, 1/rolling-hour, 100/life in USD, or 2000000tok/week; may be repeated",
    )  # fmt: skip
    what = "what a budget does with a call that does not fit (default: refuse)"
    setting.add_argument("--on-exceed", choices=("refuse", "clamp", "queue"), default="refuse", help=what)
    for name, text in (
        ("rpm", "requests per minute"),
        ("tpm", "input and output per minute, in tokens"),
        ("concurrency", "calls at once"),
        ("burst", "requests at once"),
    ):
        setting.add_argument(f"--{name}", type=int, metavar="N", help=text)
    listing = add_(group, "list", command, "show what is set here, beside the configuration")
    listing.add_argument("--json", action="store_true", help="JSON instead of text")
    remove = add_(group, "remove", command, "take away what was set for a scope")
    for parser in (setting, remove):
        parser.add_argument("scope", choices=SCOPES, help=f"one of {', '.join(SCOPES)}", metavar="SCOPE")
        parser.add_argument("value", nargs="?", default="*", metavar="NAME", help="of that scope; * is a wildcard")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the audit")
    for action, parser in (("set", setting), ("list", listing), ("remove", remove)):
        parser.set_defaults(action=action)
        state_options(parser)
