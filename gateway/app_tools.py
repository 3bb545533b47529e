"""The part of a worker's composition root that has to do with tools and MCP servers behind the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from urllib.parse import urlsplit

from gateway.call import PICO_USD, Target
from gateway.config.public import refused
from gateway.config.schema import Config, McpCache, McpServer, Timeouts, Tool, ToolCache, ToolPrice
from gateway.dialects.mcp import Mcp
from gateway.dialects.mcp_outputs import McpOutputs
from gateway.dialects.registry import DIALECTS
from gateway.dialects.tool import Tool as ToolDialect
from gateway.dialects.tool_outputs import ToolOutputs
from gateway.dialects.tool_paths import MCP, MCP_METHODS, TOOLS, Door
from gateway.ports import Dialect, Outputs, Spec
from gateway.tool import FREE, MCP_PREFIX, TOOL_PREFIX, Caching, Price, Terms

CONNECT_SECONDS = 10.0


def entries(config: Config) -> Iterator[tuple[str, Tool | McpServer]]:
    """Everything configured, by the name of its upstream."""
    yield from ((TOOL_PREFIX + name, tool) for name, tool in config.tools.items())
    yield from ((MCP_PREFIX + name, server) for name, server in config.mcp.items())


def tool_specs(config: Config) -> dict[str, Spec]:
    """The tools and servers as upstreams, which is what they are to the stages."""
    return {name: spec_of(name, entry) for name, entry in entries(config)}


def spec_of(upstream: str, tool: Tool | McpServer) -> Spec:
    url = urlsplit(tool.url)
    host, tls = url.hostname or "", url.scheme == "https"
    bracketed = f"[{host}]" if ":" in host else host
    stated = bracketed if url.port is None else f"{bracketed}:{url.port}"
    return Spec(
        name=upstream,
        family="tool" if isinstance(tool, Tool) else "mcp",
        target=Target(upstream, "", host, url.port or (443 if tls else 80), tls, b""),  # the route has the whole path
        host=stated.encode(),
        auth=((b"authorization", b"Bearer " + tool.key.encode()),) if tool.key else (),
        headers=tuple((key.encode(), value.encode()) for key, value in tool.headers.items()),
        inject_usage=False,
        propagate_trace=tool.propagate_trace,
        tool=terms_of(upstream.partition("/")[2], tool),
    )


def terms_of(name: str, tool: Tool | McpServer) -> Terms:
    if isinstance(tool, Tool):
        return Terms(name, price_of(tool.price), resend=tool.read_only, caching=caching_of(tool.cache))
    prices = tuple((pattern, price_of(price)) for pattern, price in tool.prices.items())
    return Terms(name, price_of(tool.price), prices, tool.allow, tool.deny, caching=caching_of(tool.cache))


def caching_of(cache: ToolCache | McpCache | None) -> Caching | None:
    if cache is None:
        return None
    if isinstance(cache, McpCache):
        return Caching(tuple((name, ns_of(ttl)) for name, ttl in cache.tools.items()), cache.shared)
    lifetimes = (*((pattern, ns_of(ttl)) for pattern, ttl in cache.paths.items()), ("/**", ns_of(cache.ttl)))
    return Caching(lifetimes, override=cache.override)


def ns_of(seconds: float) -> int:
    return int(seconds * 1e9)


def outputs_of(config: Config) -> dict[str, Outputs]:
    """By upstream: the tools and servers whose outputs may be kept."""
    found: dict[str, Outputs] = {}
    for name, entry in entries(config):
        caching = caching_of(entry.cache)
        if caching is not None:
            is_tool = isinstance(entry, Tool)
            found[name] = ToolOutputs(caching, urlsplit(entry.url).path) if is_tool else McpOutputs(caching)
    return found


def price_of(price: ToolPrice | None) -> Price:
    if price is None:
        return FREE
    return Price(
        round(price.usd * PICO_USD),
        (price.unit_header or "").lower().encode(),
        tuple(price.unit_field.split(".")) if price.unit_field else (),
        price.max_units,
    )


def doors_of(config: Config) -> dict[tuple[str, str], Door]:
    """What the route table needs to know of them."""
    tools = {(TOOLS, name): Door(urlsplit(t.url).path, t.methods, t.paths) for name, t in config.tools.items()}
    return {**tools, **{(MCP, name): Door(urlsplit(s.url).path, MCP_METHODS) for name, s in config.mcp.items()}}


def dialects_of(specs: Mapping[str, Spec]) -> Mapping[str, Dialect]:
    """All dialects; those of tools know their terms."""
    terms = {name: spec.tool for name, spec in specs.items() if spec.tool is not None}
    return {**DIALECTS, "tool": ToolDialect(terms), "mcp": Mcp(terms)} if terms else DIALECTS


def timeouts_of(tool: Tool | McpServer) -> Timeouts:
    if isinstance(tool, McpServer):
        return tool.timeouts
    most = tool.timeout
    return Timeouts(connect=min(CONNECT_SECONDS, most), first_byte=most, first_content=most, idle=most, total=most)


def guard_of(tool: Tool | McpServer) -> Callable[[str], str]:
    """Says why an address of its host must not be connected to."""
    return partial(refused, private=tool.allow_private, stated=urlsplit(tool.url).hostname or "")


def secrets_of(config: Config) -> list[str]:
    """What must never stand in a record."""
    return [secret for _, tool in entries(config) for secret in (tool.key or "", *tool.headers.values())]
