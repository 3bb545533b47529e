"""What a usable configuration may still get wrong: warnings for `tollgate check`, each with the field it is about."""

from __future__ import annotations

import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any

from msgspec import structs

from gateway.config import check_bulkheads, check_cache, check_resilience, check_routing, check_semantic, check_slo
from gateway.config.address import is_loopback, parse_address, parse_url
from gateway.config.check_limits import Catalogue, doubts, provider_of, unmatched
from gateway.config.defaults import provider_stated
from gateway.config.environment import variables
from gateway.config.load import Loaded
from gateway.config.problems import Path, Problem
from gateway.config.roster import Roster, roster
from gateway.config.schema import Alias, Config, Config_

GRPC_PORT, HTTP_PORT = 4317, 4318  # of OTLP
_CREDENTIAL = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)  # in the name of a header


def warnings(loaded: Loaded, shipped: Catalogue, priced: Catalogue, lacking: str = "") -> list[Problem]:
    """Everything worth a second look. `shipped` is the bare price catalogue, `priced` the one with the overrides;
    `lacking` says how to get what the local embedder lacks."""
    config = loaded.config
    found = [
        *_listening(config),
        *_upstreams(config, shipped),
        *_aliases(config, priced),
        *_overrides(config, shipped),
        *_directories(config),
        *_collector(config),
        *doubts(config, priced),
        *check_cache.doubts(config),
        *check_resilience.doubts(config),
        *check_bulkheads.doubts(config),
        *check_semantic.doubts(config, lacking),
        *check_routing.doubts(config),
        *check_slo.doubts(config, priced),
        *_readable_secrets(loaded),
    ]
    return _located(loaded, found)


def errors(loaded: Loaded, priced: Catalogue, keys: Roster) -> list[Problem]:
    """What the gateway would start with, but what cannot be meant: limits that match nothing."""
    found = unmatched(loaded.config, priced, keys)
    return _located(loaded, [*found, *check_bulkheads.unmatched(loaded.config, keys)])


def _located(loaded: Loaded, found: list[Problem]) -> list[Problem]:
    name = str(loaded.file) if loaded.file is not None else "defaults"
    located = [structs.replace(one, source=name, line=loaded.document.line(one.path)) for one in found]
    return sorted(located, key=lambda one: one.line)


def keys_in_use(config: Config) -> list[str]:
    """One line per upstream that says whose key it is called with."""
    return [
        f"{name}: {upstream.url} ({'configured key' if upstream.key else 'the key of the client passes through'})"
        for name, upstream in config.upstreams.items()
    ]


def _listening(config: Config) -> Iterator[Problem]:
    address = parse_address(config.listen)
    if address.loopback:
        return
    if not roster(config).count:
        yield Problem(("listen",), reason=f"everyone who reaches {address} can use this gateway")
    if config.tls is None:
        yield Problem(("listen",), reason="prompts and keys arrive in plain text", hint="set `tls`, or end TLS before")


def _upstreams(config: Config, shipped: Catalogue) -> Iterator[Problem]:
    for name, upstream in config.upstreams.items():
        path, url = ("upstreams", name), parse_url(upstream.url)
        host = url.hostname or ""
        if url.scheme == "http" and not is_loopback(host):
            yield Problem((*path, "url"), reason=f"prompts and keys go to {host} in plain text", hint="use https://")
        if upstream.dialect in ("opaque", "ollama") or provider_stated(upstream):
            continue  # no list has their prices
        if not shipped.guess_provider(host, url.path):
            reason = "the provider behind this URL is not known, so prices go by the names of upstream and model"
            yield Problem((*path, "url"), reason=reason, hint="set `provider` to its id in genai-prices")


def _aliases(config: Config, priced: Catalogue) -> Iterator[Problem]:
    for name, alias in config.aliases.items():
        target = alias if isinstance(alias, Alias) else Alias(model=alias)
        if target.model in config.aliases and target.model != name:
            reason = f'stands for "{target.model}", an alias itself; aliases are not followed further'
            yield Problem(("aliases", name), reason=reason)
        elif not any(priced.knows(provider, target.model) for provider in _providers(config, target, priced)):
            reason = f'no price is known for "{target.model}"; its calls will have an unknown cost'
            yield Problem(("aliases", name), reason=reason, hint="check the name, or set it under `prices.models`")


def _providers(config: Config, alias: Alias, priced: Catalogue) -> Iterator[str]:
    """The providers that an alias may end at."""
    for name, upstream in config.upstreams.items():
        if alias.upstream in (None, name):
            yield provider_of(name, upstream, priced)


def _overrides(config: Config, shipped: Catalogue) -> Iterator[Problem]:
    for name, price in config.prices.models.items():
        if price.requests is not None or (price.input is not None and price.output is not None):
            continue
        provider, slash, model = name.partition("/")
        if not (shipped.knows("", name) or (slash and shipped.knows(provider, model))):
            reason = (
                "the catalogue has no model of this name, and the override leaves `input` or `output` without a price"
            )
            yield Problem(("prices", "models", name), reason=reason)


def _directories(config: Config) -> Iterator[Problem]:
    for path, name in ((("state",), config.state), (("journal", "directory"), config.journal.directory)):
        if name is not None and (reason := _not_writable(File(name))):
            yield Problem(path, reason=reason)


def _not_writable(directory: File) -> str:
    """Why no file can be made in this directory, or "" where one can, or the directory itself can be made.

    It is tried, for permission bits say little of read-only mounts and of what root may do.
    """
    nearest = directory
    try:
        nearest = next(place for place in (directory, *directory.parents) if place.exists())
        File(tempfile.mkdtemp(prefix=".tollgate-check-", dir=nearest)).rmdir()
    except OSError as error:
        return f"{nearest} is not writable: {error.strerror}"
    return ""


def _collector(config: Config) -> Iterator[Problem]:
    otlp = config.telemetry.otlp
    if otlp is None:
        return
    usual = {"grpc": GRPC_PORT, "http/protobuf": HTTP_PORT}
    port = parse_url(otlp.endpoint).port
    if port in usual.values() and port != usual[otlp.protocol]:
        reason = f"port {port} is the usual one of the other protocol than {otlp.protocol}"
        yield Problem(("telemetry", "otlp", "endpoint"), reason=reason)


def _readable_secrets(loaded: Loaded) -> Iterator[Problem]:
    """Secrets written out in a file that others may read."""
    if loaded.file is None:
        return
    try:
        mode = loaded.file.stat().st_mode
    except OSError:
        return  # gone since it was read; nothing left to warn of
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        for path in _literal_secrets(loaded.config, loaded.document.data, ()):
            yield Problem(path, reason="a secret in a file that others can read", hint='use "$NAME", or chmod 600')


def _literal_secrets(config: Config_, data: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for name in config.__struct_fields__:
        value, written, here = getattr(config, name), data.get(name), (*path, name)
        if name in config.secret:
            if isinstance(written, dict):
                headers = [(key, text) for key, text in written.items() if _CREDENTIAL.search(key)]
                yield from ((*here, key) for key, text in headers if not variables(text))
            elif written and not variables(written) and not _without_password(written):
                yield here
        elif isinstance(value, Config_) and isinstance(written, dict):
            yield from _literal_secrets(value, written, here)
        elif isinstance(value, dict) and isinstance(written, dict):
            for key, entry in value.items():
                if isinstance(entry, Config_) and isinstance(written.get(key), dict):
                    yield from _literal_secrets(entry, written[key], (*here, key))


def _without_password(written: str) -> bool:
    """A URL in a secret field is secret for what stands before the @ only."""
    return "://" in written and "@" not in written
