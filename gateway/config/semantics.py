"""What a well-shaped configuration must also satisfy before anything may start with it.

Each rule yields problems with the path of the field to mend; none quotes a value that could be a secret.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path as File

from gateway.config import (
    semantics_bulkheads,
    semantics_cache,
    semantics_limits,
    semantics_resilience,
    semantics_routing,
    semantics_slo,
    semantics_tools,
)
from gateway.config.address import Address, parse_address, parse_url
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.roster import roster
from gateway.config.schema import Alias, Config, McpServer, Tool, Upstream

ALLOW_OPEN = "TOLLGATE_ALLOW_OPEN"
TOKEN_CHARS = 16  # least length of an admin token
_PREFIXES = {"run", "agent", "version", "budget", "tools", "mcp"}
RESERVED = frozenset({"v1", "v1beta", "healthz", "readyz", "metrics", "api"} | _PREFIXES)
"""First path segments that are routes of their own, so no upstream may be named so."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?|null")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?\Z")  # RFC 9110, 5.5
FRAMING = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
CREDENTIALS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key"}
    | {"x-amz-security-token"}
)


def faults(config: Config, env: Mapping[str, str]) -> list[Problem]:
    """Every rule that a configuration breaks; secrets are resolved and file names absolute."""
    found = [*_listeners(config, env), *_aliases(config), *_identity(config), *_places(config)]
    for name, upstream in config.upstreams.items():
        found += _upstream(name, upstream, config)
    if config.telemetry.otlp is not None:
        path = ("telemetry", "otlp")
        found += _url((*path, "endpoint"), config.telemetry.otlp.endpoint)
        found += _headers((*path, "headers"), config.telemetry.otlp.headers)
    for name, price in config.prices.models.items():
        if all(getattr(price, component) is None for component in price.__struct_fields__):
            found.append(Problem(("prices", "models", name), reason="sets no price", hint="name at least `input`"))
    if config.prices.litellm_file is not None:
        found += _readable(("prices", "litellm_file"), config.prices.litellm_file)
    found += semantics_resilience.faults(config)
    found += semantics_routing.faults(config)
    found += semantics_bulkheads.faults(config)
    found += semantics_slo.faults(config)
    return [*found, *semantics_limits.faults(config), *semantics_cache.faults(config), *_tools(config)]


def _tools(config: Config) -> Iterator[Problem]:
    sections: tuple[tuple[str, Mapping[str, Tool | McpServer]], ...] = (("tools", config.tools), ("mcp", config.mcp))
    for kind, entries in sections:
        for name, entry in entries.items():
            path = (kind, name)
            yield from semantics_tools.faults(path, entry)
            yield from _headers((*path, "headers"), entry.headers)
            if entry.key is not None and not _VALUE.match(entry.key):
                yield Problem((*path, "key"), reason="must be printable characters without surrounding space")
            if entry.ca_file is not None:
                yield from _ca((*path, "ca_file"), entry.ca_file)
            yield from _itself((*path, "url"), entry.url, config.listen)


def _listeners(config: Config, env: Mapping[str, str]) -> Iterator[Problem]:
    addresses: dict[str, Address] = {}
    for name in ("listen", "admin"):
        try:
            addresses[name] = parse_address(getattr(config, name))
        except ValueError as reason:
            yield Problem((name,), reason=str(reason))
    listen, admin = addresses.get("listen"), addresses.get("admin")
    if listen and admin and listen.clashes(admin):
        yield Problem(("admin",), reason="cannot share its port with `listen`")
    yield from _admin_token(config, admin)
    if listen and not listen.loopback and env.get(ALLOW_OPEN) != "1" and not roster(config).count:
        paying = [name for name, upstream in config.upstreams.items() if upstream.key]
        could = f"spend the key of {', '.join(paying)}" if paying else "use this gateway"
        yield Problem(
            ("listen",),
            reason=f"everyone who reaches {listen} could {could}, for no virtual key is configured",
            hint="make one with `tollgate keys create`, listen on 127.0.0.1, "
            f"or set {ALLOW_OPEN}=1 if only trusted clients can reach this port",
        )
    for place, origin in enumerate(config.allowed_origins):
        if not _ORIGIN.fullmatch(origin):
            yield Problem(
                ("allowed_origins", str(place)),
                reason="must be a page's origin as browsers send it: scheme, host and port alone, in lower case",
                hint='for instance "https://chat.example.com" or "http://10.0.0.5:3000"',
            )
    if config.tls is not None:
        yield from _tls(config.tls.certificate, config.tls.key)


def _admin_token(config: Config, admin: Address | None) -> Iterator[Problem]:
    token = config.admin_token
    if token is None:
        if admin and not admin.loopback:
            yield Problem(
                ("admin",),
                reason=f"{admin} is not on loopback, so `admin_token` is required",
                hint='write `admin_token: "$TOLLGATE_ADMIN_TOKEN"` or set that variable',
            )
    elif len(token) < TOKEN_CHARS or not re.fullmatch(r"[\x21-\x7e]+", token):
        yield Problem(
            ("admin_token",), reason=f"must have at least {TOKEN_CHARS} characters, all printable ASCII without spaces"
        )


def _upstream(name: str, upstream: Upstream, config: Config) -> Iterator[Problem]:
    path = ("upstreams", name)
    if name.lower() in RESERVED:
        yield Problem(path, reason="this name is a route of the gateway", hint="choose another name")
    yield from _url((*path, "url"), upstream.url)
    if upstream.key is not None and not _VALUE.match(upstream.key):
        yield Problem((*path, "key"), reason="must be printable characters without surrounding space")
    yield from _headers((*path, "headers"), upstream.headers)
    if upstream.ca_file is not None:
        yield from _ca((*path, "ca_file"), upstream.ca_file)
    yield from _itself((*path, "url"), upstream.url, config.listen)


def _itself(path: Path, url: str, listen: str) -> Iterator[Problem]:
    try:
        parts, here = parse_url(url), parse_address(listen)
    except ValueError:
        return  # reported where it stands
    port = parts.port or (443 if parts.scheme == "https" else 80)
    there = Address(parts.hostname or "", port)
    if there.port == here.port and (there.host == here.host or (there.loopback and (here.loopback or here.wildcard))):
        yield Problem(path, reason="points at the gateway itself")


def _url(path: Path, url: str) -> Iterator[Problem]:
    try:
        parse_url(url)
    except ValueError as reason:
        hint = "variables are read in secret fields only" if url.startswith("$") else ""
        yield Problem(path, reason=str(reason), hint=hint)


def _headers(path: Path, headers: Mapping[str, str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.match(name):
            yield Problem(path, reason="a header name holds letters, digits and !#$%&'*+-.^_`|~ only")
        elif name.lower() in FRAMING:
            yield Problem((*path, name), reason="this header belongs to the connection and cannot be set")
        elif name.lower() in seen:
            yield Problem((*path, name), reason="stands twice but for upper and lower case")
        elif not _VALUE.match(value):
            yield Problem((*path, name), reason="the value holds characters that a header must not have, or is empty")
        seen.add(name.lower())


def _aliases(config: Config) -> Iterator[Problem]:
    for name, alias in config.aliases.items():
        path = ("aliases", name)
        target = alias.model if isinstance(alias, Alias) else alias
        if not target.strip():
            yield Problem(path, reason="stands for no model")
        if target == name and not (isinstance(alias, Alias) and alias.upstream):
            yield Problem(path, reason="stands for itself")
        upstream = alias.upstream if isinstance(alias, Alias) else None
        if upstream is not None and upstream not in config.upstreams:
            hint = did_you_mean(upstream, config.upstreams) or "known: " + ", ".join(config.upstreams)
            yield Problem((*path, "upstream"), reason="no upstream has this name", hint=hint)


def _identity(config: Config) -> Iterator[Problem]:
    for field in ("tenant_header", "run_header", "agent_header"):
        header = getattr(config.identity, field)
        if header is None:
            continue
        if not _TOKEN.match(header):
            yield Problem(("identity", field), reason="not a header name")
        elif header.lower() in CREDENTIALS:
            yield Problem(("identity", field), reason="this header carries a credential, and its value is recorded")


def _places(config: Config) -> Iterator[Problem]:
    if config.state is None:
        yield Problem(("state",), reason="there is no home directory to keep the state in", hint="set `state`")
    names = {("state",): config.state, ("journal", "directory"): config.journal.directory}
    for path, name in {**names, ("telemetry", "log"): config.telemetry.log}.items():
        if name is not None and not name.isprintable():
            yield Problem(path, reason="not a file name")
    if config.journal.retention_bytes < config.journal.segment_bytes:
        yield Problem(("journal", "retention_bytes"), reason="must hold at least one segment (`segment_bytes`)")


def _tls(certificate: str, key: str) -> Iterator[Problem]:
    unreadable = [*_readable(("tls", "certificate"), certificate), *_readable(("tls", "key"), key)]
    yield from unreadable
    if unreadable:
        return
    try:
        # an empty password instead of a question on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        yield Problem(("tls",), reason="not a PEM certificate with its own unencrypted private key")


def _ca(path: Path, file: str) -> Iterator[Problem]:
    unreadable = list(_readable(path, file))
    yield from unreadable
    if unreadable:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ValueError):
        yield Problem(path, reason="holds no PEM certificate")


def _readable(path: Path, file: str) -> Iterator[Problem]:
    try:
        with File(file).open("rb") as stream:
            stream.read(1)
    except OSError as error:
        yield Problem(path, reason=f"cannot read {file}: {error.strerror}")
    except ValueError:  # a NUL in the name
        yield Problem(path, reason="not a file name")
