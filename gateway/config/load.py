"""Loading: find the file, read it, join it with defaults and environment, and say everything that is wrong at once.

Order of precedence: command line, environment, file, built-in defaults. An `upstreams` entry in the file adds to the
built-in upstreams; one with the same name replaces the built-in wholly, its key included.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any

from msgspec import Struct, structs

from gateway.config import defaults, environment, semantics, shape
from gateway.config.environment import Setting
from gateway.config.problems import ConfigError, Path, Problem
from gateway.config.schema import Config, Config_
from gateway.config.source import MAX_BYTES, Document, parse

CONFIG_VARIABLE = "TOLLGATE_CONFIG"
FILE_NAME = "tollgate.yaml"
NEARLY = 0.85  # similarity of two names; what Kubernetes sets for a service of our name is less like one of ours
MASK = "***"


class Loaded(Struct, frozen=True):
    """A usable configuration, the file it came from (None: defaults alone), and the document for line numbers."""

    config: Config
    file: File | None
    document: Document


def load(
    path: File | None = None, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
) -> Config:
    """The configuration in force. `overrides` maps dotted fields to values (`{"listen": "127.0.0.1:0"}`).

    Raises ConfigError with every problem found. Secrets are resolved, file names absolute, `state` and
    `journal.directory` filled in.
    """
    return load_with_source(path, env or {}, overrides or {}).config


def find(path: File | None, env: Mapping[str, str]) -> File | None:
    """The file to read: as given, else `TOLLGATE_CONFIG`, else `tollgate.yaml` here if there is one."""
    if path is not None:
        return path
    if env.get(CONFIG_VARIABLE):
        return File(env[CONFIG_VARIABLE])
    here = File(FILE_NAME)
    return here if here.is_file() else None


def load_with_source(path: File | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> Loaded:
    """As `load`, with where it came from."""
    file = find(path, env)
    document = _read(file) if file is not None else Document()
    name = str(file) if file is not None else "defaults"
    options = [Setting(tuple(key.split(".")), value, "--" + key.split(".")[-1]) for key, value in overrides.items()]
    outside = [*environment.settings(env), *options]
    data = _merged(document.data, outside, env)
    origins = {setting.path: setting.source for setting in outside}
    problems = _besides(document.problems, shape.faults(data))
    if not problems:
        config = shape.build(data)
        config = structs.replace(config, upstreams={**defaults.upstreams(env), **config.upstreams})
        config, unset = environment.resolve(config, env)
        config = _placed(config, file, env, origins)
        problems = _besides(unset, semantics.faults(config, env))
    if problems:
        raise ConfigError(_located(problem, document, name, origins) for problem in problems)
    return Loaded(config, file, document)


def misnamed(env: Mapping[str, str]) -> list[Problem]:
    """Variables that are read by nobody, but nearly have the name of one that is."""
    known = [CONFIG_VARIABLE, *environment.SETTINGS]
    near = {
        name: difflib.get_close_matches(name, known, n=1, cutoff=NEARLY)
        for name in sorted(env)
        if name.startswith("TOLLGATE_") and name not in known
    }
    return [
        Problem(reason="this variable is not read", hint=f"did you mean {one[0]}?", source=name)
        for name, one in near.items()
        if one
    ]


def redacted(config: Config_) -> dict[str, Any]:
    """The configuration as plain data without its secrets, fit to be shown."""
    shown: dict[str, Any] = {}
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if name in config.secret:
            value = dict.fromkeys(value, MASK) if isinstance(value, dict) else (MASK if value else value)
        elif isinstance(value, Config_):
            value = redacted(value)
        elif isinstance(value, dict):
            value = {key: redacted(entry) if isinstance(entry, Config_) else entry for key, entry in value.items()}
        elif isinstance(value, tuple):
            value = [redacted(entry) if isinstance(entry, Config_) else entry for entry in value]
        shown[name] = value
    return shown


def _read(file: File) -> Document:
    name = str(file)
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(reason=f"cannot read it: {error.strerror}", source=name)]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(reason=f"not UTF-8 at byte {error.start}", source=name)]) from None
    return parse(text, name)


def _merged(data: Mapping[str, Any], outside: list[Setting], env: Mapping[str, str]) -> dict[str, Any]:
    """The data of the file under the settings that outrank it. Sections on the way are copied, never changed."""
    merged = dict(data)
    telemetry = merged.get("telemetry", {})
    standard = environment.otlp(env)
    if standard is not None and isinstance(telemetry, dict) and "otlp" not in telemetry:
        merged["telemetry"] = {**telemetry, "otlp": standard}
    for setting in outside:
        section = merged
        for key in setting.path[:-1]:
            inner = section.get(key)
            section[key] = dict(inner) if isinstance(inner, dict) else {}
            section = section[key]
        section[setting.path[-1]] = setting.value
    return merged


def _besides(first: list[Problem], later: list[Problem]) -> list[Problem]:
    """Both, without those of `later` about a field in `first`: they are the consequence of what was said already."""
    blamed = {problem.path for problem in first}
    return [*first, *(problem for problem in later if problem.path not in blamed)]


def _located(problem: Problem, document: Document, name: str, origins: Mapping[Path, str]) -> Problem:
    if problem.source:
        return problem
    if problem.path in origins:
        return structs.replace(problem, source=origins[problem.path])
    if problem.path[:2] == ("telemetry", "otlp") and not document.line(("telemetry", "otlp")):
        return structs.replace(problem, source="environment")
    line = document.line(problem.path)
    return structs.replace(problem, source=name, line=line)


def _placed(config: Config, file: File | None, env: Mapping[str, str], origins: Mapping[Path, str]) -> Config:
    """File names of the configuration are relative to the file they stand in, all others to the working directory."""
    base = (file.parent if file is not None else File()).absolute()
    home = defaults.home(env)

    def place(name: str | None, under: File = base) -> str | None:
        if name is None:
            return None
        if home is not None and (name == "~" or name.startswith("~/")):
            return str(home / name[2:])
        return str(under / name)

    standard = defaults.state_directory(env)
    fallback = str(standard) if standard is not None else None
    state = place(config.state, File().absolute() if ("state",) in origins else base) or fallback
    tls, log = config.tls, config.telemetry.log
    upstreams = {key: structs.replace(up, ca_file=place(up.ca_file)) for key, up in config.upstreams.items()}
    learns = [rule.learn and structs.replace(rule.learn, labels=place(rule.learn.labels)) for rule in config.routes]
    journal = place(config.journal.directory) or (state and str(File(state) / "journal"))
    return structs.replace(
        config,
        state=state,
        tls=tls and structs.replace(tls, certificate=place(tls.certificate), key=place(tls.key)),
        upstreams=upstreams,
        routes=tuple([structs.replace(rule, learn=learn) for rule, learn in zip(config.routes, learns, strict=True)]),
        prices=structs.replace(config.prices, litellm_file=place(config.prices.litellm_file)),
        journal=structs.replace(config.journal, directory=journal),
        telemetry=structs.replace(config.telemetry, log=log if log == "stdout" else place(log)),
    )
