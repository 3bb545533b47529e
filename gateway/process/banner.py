"""What `tollgate serve` prints once it is ready."""

from __future__ import annotations

from pathlib import Path

from gateway import __version__
from gateway.config.address import Address
from gateway.process.sockets import reachable


def banner(listen: Address, admin: Address, *, tls: bool, file: Path | None, state: Path) -> str:
    base = f"{'https' if tls else 'http'}://{reachable(listen)}"
    return f"""\
tollgate {__version__} is ready

  export OPENAI_BASE_URL={base}/v1
  export ANTHROPIC_BASE_URL={base}
  export GOOGLE_GEMINI_BASE_URL={base}

  admin   http://{reachable(admin)}
  config  {file if file is not None else "built-in defaults"}
  state   {state}
"""
