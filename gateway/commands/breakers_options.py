"""The options of `tollgate breakers`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gateway.commands.keys_options import Add, Command, Parsers


def add(group: Parsers, command: Command, add_: Add, state_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add list, open, close and auto; each is told by `options.action`."""
    listing = add_(group, "list", command, "show those that have opened, and those held by hand")
    listing.add_argument("--json", action="store_true", help="JSON instead of text")
    made = [("list", listing)]
    for action, text in (
        ("open", "send nothing there until it is released"),
        ("close", "send calls there whatever it counts"),
        ("auto", "let it go by what it counts"),
    ):
        parser = add_(group, action, command, text)
        parser.add_argument("name", metavar="NAME", help="an upstream, upstream/model, or tools/NAME")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the audit")
        made.append((action, parser))
    for action, parser in made:
        parser.set_defaults(action=action)
        state_options(parser)
