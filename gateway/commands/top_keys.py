"""The keys of `tollgate top`: what a key does to what is shown, and what it asks to be done."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

UP, DOWN, HOME, END, ESCAPE = "up", "down", "home", "end", "escape"
_SEQUENCES = {
    **{b"\x1b[A": UP, b"\x1bOA": UP, b"\x1b[B": DOWN, b"\x1bOB": DOWN},
    **{b"\x1b[H": HOME, b"\x1bOH": HOME, b"\x1b[1~": HOME, b"\x1b[F": END, b"\x1bOF": END, b"\x1b[4~": END},
}
HELP = "q quit   ↑ ↓ choose a run   k stop it   r let it go on   o order   p pause"


class Screen(Struct, frozen=True):
    """What the person at the terminal has made of it. `run` is the id of the chosen one, "" the first."""

    run: str = ""
    by_cost: bool = True
    paused: bool = False
    asking: str = ""  # the run that is to be stopped, until y or n
    note: str = ""


class Do(Struct, frozen=True):
    """`what`: quit, kill or resume; `run` is its subject."""

    what: str
    run: str = ""


def read(data: bytes) -> list[str]:
    """The keys of what a terminal sent at once."""
    found = []
    while data:
        sequence = next((known for known in _SEQUENCES if data.startswith(known)), None)
        if sequence is not None:
            found.append(_SEQUENCES[sequence])
            data = data[len(sequence) :]
        elif data.startswith((b"\x1b[", b"\x1bO")):
            data = _behind(data)
        else:
            found.append(ESCAPE if data[:1] == b"\x1b" else data[:1].decode("latin-1"))
            data = data[1:]
    return found


def _behind(data: bytes) -> bytes:
    """Behind a sequence that is not known here: it ends with a letter or ~."""
    for place in range(2, len(data)):
        if 0x40 <= data[place] <= 0x7E:
            return data[place + 1 :]
    return b""


def press(screen: Screen, key: str, runs: Sequence[str]) -> tuple[Screen, Do | None]:
    """`runs` are the ids in their order on the screen."""
    if screen.asking:
        kept = structs.replace(screen, asking="", note="")
        if key in ("y", "Y"):
            return kept, Do("kill", screen.asking)
        return structs.replace(kept, note="not stopped"), None
    if key in ("q", "Q", "\x03", "\x04"):
        return screen, Do("quit")
    screen = structs.replace(screen, note="")
    if key in (UP, DOWN, HOME, END):
        return _moved(screen, key, runs), None
    if key == "o":
        return structs.replace(screen, by_cost=not screen.by_cost, run=""), None
    if key == "p":
        return structs.replace(screen, paused=not screen.paused), None
    run = chosen(screen, runs)
    if key == "k" and run:
        return structs.replace(screen, asking=run), None
    if key == "r" and run:
        return screen, Do("resume", run)
    return screen, None


def chosen(screen: Screen, runs: Sequence[str]) -> str:
    """The id of the run under the mark; "": there is none."""
    return screen.run if screen.run in runs else (runs[0] if runs else "")


def _moved(screen: Screen, key: str, runs: Sequence[str]) -> Screen:
    if not runs:
        return screen
    now = runs.index(chosen(screen, runs))
    to = {UP: now - 1, DOWN: now + 1, HOME: 0, END: len(runs) - 1}[key]
    return structs.replace(screen, run=runs[max(0, min(len(runs) - 1, to))])
