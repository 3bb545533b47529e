"""What holds without a file: three upstreams, and a place for the state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from gateway.config.schema import DialectName, Upstream


class BuiltIn(Struct, frozen=True):
    """An upstream everybody has. The first variable that is set holds its key; else the client's own key passes."""

    dialect: DialectName
    url: str
    provider: str
    key_variables: tuple[str, ...]


BUILT_IN: dict[str, BuiltIn] = {
    "openai": BuiltIn("openai", "https://api.openai.com", "openai", ("OPENAI_API_KEY",)),
    "anthropic": BuiltIn("anthropic", "https://api.anthropic.com", "anthropic", ("ANTHROPIC_API_KEY",)),
    "gemini": BuiltIn(
        "gemini", "https://generativelanguage.googleapis.com", "google", ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    ),
}

SLOW_MODELS = ("o1-pro*", "o3-pro*", "gpt-5-pro*", "gpt-5.*-pro*", "*deep-research*")
"""Models that may be silent for longer than ten minutes by design."""
SLOW_SECONDS = 1800.0  # their time to the first byte and to the first content


def upstreams(env: Mapping[str, str]) -> dict[str, Upstream]:
    """The built-in upstreams, their keys written as `$NAME` where the environment has them."""
    return {
        name: Upstream(
            dialect=known.dialect,
            url=known.url,
            provider=known.provider,
            key=next((f"${variable}" for variable in known.key_variables if env.get(variable)), None),
        )
        for name, known in BUILT_IN.items()
    }


def home(env: Mapping[str, str]) -> Path | None:
    """The home directory of the user; None for one without, as in a container with an arbitrary user id."""
    place = Path(env.get("HOME") or os.path.expanduser("~"))
    return place if place.is_absolute() else None


def state_directory(env: Mapping[str, str]) -> Path | None:
    """`$XDG_STATE_HOME/tollgate`, or `~/.local/state/tollgate` (XDG base directory specification); None without a home.

    As the specification says, a variable with a relative path is ignored.
    """
    base = Path(env.get("XDG_STATE_HOME", ""))
    if base.is_absolute():
        return base / "tollgate"
    place = home(env)
    return place / ".local" / "state" / "tollgate" if place is not None else None


def provider_stated(upstream: Upstream) -> str:
    """Its provider in the price catalogue, where that need not be guessed from the URL; else ""."""
    return upstream.provider or ("aws" if upstream.dialect == "bedrock" else "")


def drains(upstream: Upstream) -> bool:
    """Is an answer read to its end when its client leaves? Bedrock bills the whole of it in any case."""
    return (upstream.on_client_gone or ("drain" if upstream.dialect == "bedrock" else "cancel")) == "drain"
