"""One recovery as a supervisor does it: `recoverer.py <journal> <tables>`; says "ready" before and "done" after."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.journal.recover import Recovery


def main() -> None:
    journal, tables = Path(sys.argv[1]), Path(sys.argv[2])
    writer = JournalWriter(journal, "sup", Journal(), inflight=tables, slots=0)
    os.write(1, b"ready\n")
    Recovery(tables, journal, writer, "sup").run(time.time_ns())
    os.write(1, b"done\n")


if __name__ == "__main__":
    main()
