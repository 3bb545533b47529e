"""What the environment adds to the file: single settings, and the secrets that `$NAME` stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from msgspec import Struct, structs

from gateway.config.problems import Path, Problem
from gateway.config.schema import Config_

SETTINGS: dict[str, Path] = {
    "TOLLGATE_LISTEN": ("listen",),
    "TOLLGATE_ADMIN": ("admin",),
    "TOLLGATE_ADMIN_TOKEN": ("admin_token",),
    "TOLLGATE_WORKERS": ("workers",),
    "TOLLGATE_STATE": ("state",),
}
OTLP: dict[str, str] = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "endpoint",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "protocol",
    "OTEL_EXPORTER_OTLP_HEADERS": "headers",
}
"""Read where the file has no `telemetry.otlp`; names of the OpenTelemetry specification."""

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)|(\$)|(\{))")
_INT = re.compile(r"[0-9]{1,18}\Z")
S = TypeVar("S", bound=Config_)


class Setting(Struct, frozen=True):
    """One value that outranks the file, and where it was said."""

    path: Path
    value: Any
    source: str


def settings(env: Mapping[str, str]) -> list[Setting]:
    """The settings of the environment. An empty variable counts as not set."""
    found = []
    for name, path in SETTINGS.items():
        text = env.get(name, "")
        if not text:
            continue
        value: Any = int(text) if path == ("workers",) and _INT.match(text) else text
        if path == ("admin_token",):
            value = text.replace("$", "$$")  # it is the secret itself, not the name of one
        found.append(Setting(path, value, name))
    return found


def otlp(env: Mapping[str, str]) -> dict[str, Any] | None:
    """The section `telemetry.otlp` as the standard variables describe it; None without an endpoint."""
    if not env.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    section: dict[str, Any] = {field: env[name] for name, field in OTLP.items() if env.get(name)}
    if "headers" in section:
        pairs = (pair.partition("=") for pair in section["headers"].split(",") if pair.strip())
        section["headers"] = {
            unquote(name.strip()): unquote(value.strip()).replace("$", "$$") for name, _, value in pairs
        }
    return section


def resolve(section: S, env: Mapping[str, str]) -> tuple[S, list[Problem]]:
    """Put in the secrets that `$NAME` and `${NAME}` stand for; `$$` is a dollar sign.

    Only fields that their section declares secret are read so. A variable that is missing or empty is a problem, and so
    is what a shell would make of `${NAME:-default}`.
    """
    problems: list[Problem] = []
    return _resolve(section, env, (), problems), problems


def _resolve(section: S, env: Mapping[str, str], path: Path, problems: list[Problem]) -> S:
    changed: dict[str, Any] = {}
    for name in section.__struct_fields__:
        value, here = getattr(section, name), (*path, name)
        if name in section.secret:
            changed[name] = _expand(value, env, here, problems)
        elif isinstance(value, Config_):
            changed[name] = _resolve(value, env, here, problems)
        elif isinstance(value, dict):
            changed[name] = {
                key: _resolve(entry, env, (*here, key), problems) if isinstance(entry, Config_) else entry
                for key, entry in value.items()
            }
        elif isinstance(value, tuple):
            changed[name] = tuple(
                _resolve(entry, env, (*here, str(index)), problems) if isinstance(entry, Config_) else entry
                for index, entry in enumerate(value)
            )
    return structs.replace(section, **changed)


def _expand(value: Any, env: Mapping[str, str], path: Path, problems: list[Problem]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(entry, env, (*path, key), problems) for key, entry in value.items()}
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        if match[3]:
            return "$"
        if match[4]:
            problems.append(
                Problem(path, reason="`${` begins no `${NAME}`; write `$${` where it is meant as it stands")
            )
            return ""
        name = match[1] or match[2]
        found = env.get(name, "")
        if not found:
            problems.append(Problem(path, reason=f"the environment variable {name} is not set"))
        return found

    return _VARIABLE.sub(variable, value)


def variables(value: str) -> Iterable[str]:
    """The names that a secret field refers to."""
    return [match[1] or match[2] for match in _VARIABLE.finditer(value) if match[1] or match[2]]
