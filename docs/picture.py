"""Makes docs/demo.svg: runs `tollgate demo --once` in a terminal of its own and draws what stands in it at the end.

python docs/picture.py
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 100, 60
CURSOR = re.compile(r"\x1b\[\?25[lh]")
REDRAWN = re.compile(r"(?:\r?\x1b\[(?:2K|1A))+")  # what a live display sends to draw over its last frame
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # the reader's own fonts do; nothing is fetched


def recorded(command: list[str]) -> str:
    """What the command writes to a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)  # noqa: S603
    os.close(slave)
    data = b""
    try:
        while piece := os.read(master, 65_536):
            data += piece
    except OSError:  # the end of a terminal
        pass
    process.wait()
    return data.decode().replace("\r\n", "\n")


def final(text: str) -> str:
    """The lines that are left standing: those before the live display, its last frame, and those after it."""
    before, *rest = CURSOR.split(text, maxsplit=1)
    return before + "".join(CURSOR.sub("", REDRAWN.split(part)[-1]) for part in rest)


def main() -> None:
    tollgate = str(Path(sys.executable).with_name("tollgate"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("$ make demo\n" + final(recorded([tollgate, "demo", "--once"]))))
    svg = console.export_svg(title="tollgate demo")
    lines = (line.rstrip() for line in FONTS.sub("", svg).splitlines())
    Path(__file__).with_name("demo.svg").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
