from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A state directory, and an admin address where nobody is."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TOLLGATE_ADMIN", f"127.0.0.1:{sock.getsockname()[1]}")
        yield ["--state", str(tmp_path / "state")]
