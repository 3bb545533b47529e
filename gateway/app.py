"""The composition root of a worker: the only module that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from urllib.parse import urlsplit

from gateway.app_cache import Larder
from gateway.app_resilience import Resilience, waits_of
from gateway.app_routing import Crossroads
from gateway.app_spending import Purse
from gateway.app_tools import dialects_of, doors_of, entries, guard_of, timeouts_of, tool_specs
from gateway.app_tools import secrets_of as secrets_of_tools
from gateway.call import Request, Target
from gateway.config import places
from gateway.config.address import passwords
from gateway.config.defaults import drains, provider_stated
from gateway.config.schema import Alias, Config, Loops, Upstream
from gateway.dialects.auth import auth_lines
from gateway.dialects.items import read_item
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.dialects.translate.port import Translator
from gateway.errors import GatewayError
from gateway.journal.append import JournalWriter
from gateway.net.descriptors import Descriptors
from gateway.net.pool import Pools
from gateway.net.server import Server
from gateway.net.shadow import Shadows
from gateway.net.tls import ListenerTls, client_context
from gateway.net.turns import Turns
from gateway.pipeline import serve
from gateway.policy.estimate import TokenEstimator, expected_input
from gateway.policy.identity import Resolver
from gateway.policy.pricing import PriceTable
from gateway.policy.prompt_cache import PromptCacheHealth
from gateway.ports import Downstream, Gateway, Learned, Spec
from gateway.prices.catalogue import ensure_compiled
from gateway.prices.load import load as load_prices
from gateway.process.control import Configure
from gateway.stages.live import Live
from gateway.stores.local_table import LocalTable
from gateway.stores.secret_file import shared_secret
from gateway.stores.shared_table import SharedTable
from gateway.stores.sqlite_controls import SqliteControls

log = logging.getLogger("tollgate.worker")
MARKED = frozenset(name for name, dialect in DIALECTS.items() if dialect.caches_marked)
TICK_SECONDS = 0.25  # kills and keys changed elsewhere hold within a second: at most two looks later
TLS_SECONDS = 30.0  # between looks at the listener's certificate files
CUT_SECONDS = 1.0  # for the last error events to leave


class Entropy:
    """Random bytes for ids, fetched from the kernel in bulk: a system call each would cost as much as a record."""

    BULK = 8192

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        at = self._at
        if at + count > len(self._pool):
            self._pool, at = os.urandom(self.BULK), 0
        self._at = at + count
        return self._pool[at : at + count]


class Worker:
    """One worker: its server, its pools, and the `Gateway` of the configuration in force.

    `configure` builds a new Gateway beside the old one and swaps them; calls under way end with their own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, first: Configure) -> None:
        self.loop = loop
        state = Path(first.state)
        config = first.config
        self.entropy = Entropy()
        self.links = links_of(config, state)
        self.secret = shared_secret(state / "identity.secret")
        self.instance = f"tollgate-{hashlib.blake2b(f'{state}|{first.listen}'.encode(), digest_size=6).hexdigest()}"
        self.controls = SqliteControls(places.controls(config))
        self.live = Live()
        self.purse = Purse(config, first.index, self.links, log.error)
        self.shadows = Shadows(loop, self.handle)
        self.larder = Larder(loop, self.shadows.send)
        self.crossroads = Crossroads(self.shadows.send)
        self.catalogue = ensure_compiled(state)
        self.journal = JournalWriter(
            Path(first.journal),
            f"w{first.index}",
            config.journal,
            worker=first.index,
            inflight=Path(first.inflight),
            capture=config.capture,
            capture_bytes=config.capture_bytes,
            secrets=secrets_of(config),
        )
        # Told before it is looked once more: from now on whoever decides something waits for this worker, too.
        self.journal.gauges.set("controls_revision", self.controls.revision)
        self.controls.refresh()
        self.purse.cap(self.controls.caps)
        self.purse.tell(self.journal)
        self.resilience = Resilience(self.journal, first.index)
        self.resilience.answers = lambda: self.larder.local
        self.resilience.links = self.links if isinstance(self.links, LocalTable) else None
        self.descriptors = Descriptors()
        self.pools = Pools(loop, descriptors=self.descriptors)
        self.turns = Turns(loop)
        self.gateway = self.build(config)
        self.server = Server(loop, config.limits, self.handle, self.descriptors)
        self.tls = ListenerTls(config.tls) if config.tls is not None else None
        self._tls_at = loop.time() + TLS_SECONDS
        self._lag = 0.0
        self._ticked = loop.time()
        self._timer = loop.call_later(TICK_SECONDS, self.tick)

    def handle(self, request: Request, down: Downstream, fault: GatewayError | None) -> Awaitable[None]:
        return serve(request, down, self.gateway, fault)

    def configure(self, config: Config) -> None:
        """Bring a reloaded configuration into force. Raises OSError or ValueError and then changes nothing."""
        gateway = self.build(config)
        self.journal.configure(
            config.journal, capture=config.capture, capture_bytes=config.capture_bytes, secrets=secrets_of(config)
        )
        self.purse.configure(config)
        self.gateway = gateway
        self.server.limits = config.limits
        if self.tls is not None:
            self.tls.refresh()  # its files are watched with the configuration

    def new_run_id(self) -> str:
        """Ascending in time, as ids of calls are: the ledger's index of runs then grows at its end."""
        return f"{time.time_ns() // 1_000_000:012x}{self.entropy.take(10).hex()}"

    def build(self, config: Config) -> Gateway:
        prices = load_prices(self.catalogue, config.prices, config.upstreams)
        specs = {name: spec_of(name, upstream, prices) for name, upstream in config.upstreams.items()}
        contexts = {
            name: client_context(upstream.ca_file) if specs[name].target.tls else None
            for name, upstream in config.upstreams.items()
        }
        for name, spec in specs.items():
            self.pools.add(spec.target, config.upstreams[name].timeouts, contexts[name])
        specs |= self.tools(config)
        return Gateway(
            dialects=dialects_of(specs),
            routes=Table({name: upstream.dialect for name, upstream in config.upstreams.items()}, doors_of(config)),
            specs=specs,
            aliases={name: alias_of(alias) for name, alias in config.aliases.items()},
            prices=prices,
            estimator=TokenEstimator(),
            identity=self.resolver(config),
            links=self.links,
            journal=self.journal,
            upstreams=self.pools,
            instance=self.instance.encode(),
            monotonic=time.monotonic_ns,
            now=time.time_ns,
            random=self.entropy.take,
            learned=Learned(),
            controls=self.controls,
            live=self.live,
            keys=self.purse.keys,
            origins=frozenset(config.allowed_origins),
            admission=self.purse.admitter(config, prices),
            cache=self.larder.cache(config, self.links),
            router=self.crossroads.router(config),
            shedder=self.resilience.shedder(config),
            loops=self.purse.loops(config),
            trials=self.resilience.trials(config),
            turns=self.turns,
            waits=waits_of(config),
            halt=self.halt,
            downshift=downshift_of(config.loops),
            prompt_cache=PromptCacheHealth(self.links, prices, MARKED) if config.prompt_cache.health else None,
            translator=Translator(expected_input),
            mark_prefixes=config.prompt_cache.breakpoints,
            cost_header=config.cost_header,
            stream_cost_comment=config.stream_cost_comment,
            capture_bytes=config.capture_bytes if config.capture != "off" else 0,
        )

    def resolver(self, config: Config) -> Resolver:
        gated = bool(config.tools or config.mcp)
        return Resolver(config.identity, self.links, self.new_run_id, self.secret, read_item, gated=gated)

    def halt(self, run_id: str, reason: str) -> None:
        """The breaker stops a run: here at once, in other workers with their next look."""
        self.purse.halt(run_id, reason)
        self.look()

    def look(self) -> None:
        """Take in what people and the breaker decided, and tell the calls that it ends."""
        if self.controls.refresh():
            self.purse.cap(self.controls.caps)
            self.live.sweep(self.controls)
        else:
            self.live.insist()

    def tools(self, config: Config) -> dict[str, Spec]:
        """The tools of a configuration, with their pools. Raises OSError for a CA file that cannot be used."""
        specs = tool_specs(config)
        found = dict(entries(config))
        contexts = {
            name: client_context(tool.ca_file) if specs[name].target.tls else None for name, tool in found.items()
        }
        for name, tool in found.items():
            self.pools.add(specs[name].target, timeouts_of(tool), contexts[name], guard_of(tool))
        return specs

    def tick(self) -> None:
        now = self.loop.time()
        late = max(now - self._ticked - TICK_SECONDS, 0.0)
        self._lag = max(late, self._lag * 0.8)
        self._ticked = now
        self._timer = self.loop.call_later(TICK_SECONDS, self.tick)
        self.server.tick()
        self.pools.tick()
        self.journal.tick()
        self.count_descriptors(now)
        self.purse.tell(self.journal)
        self.purse.tick(now)
        self.larder.tell(self.journal)
        self.look()
        self.larder.tick(time.time_ns())
        self.resilience.tick(late)
        self.crossroads.tick()
        if self.tls is not None and now > self._tls_at:
            self._tls_at = now + TLS_SECONDS
            self.tls.refresh()
        gauges = self.journal.gauges
        gauges.set("inflight_requests", len(self.journal.table))
        gauges.set("controls_revision", self.controls.revision)
        gauges.set("event_loop_lag_seconds", self._lag)

    def count_descriptors(self, now: float) -> None:
        files = self.descriptors
        files.look(len(self.server.connections), now, lambda said: self.journal.append_event("descriptors", **said))
        self.journal.gauges.set("descriptors_used_ratio", min(1.0, files.used / max(1, files.limit)))

    async def drain(self, seconds: float) -> None:
        """Let the calls under way end by themselves for `seconds`, then end them with an error of their dialect."""
        self.server.drain()
        self.shadows.cut()
        for limit in (seconds, CUT_SECONDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self.server.emptied.wait()
            self.server.cut()

    async def close(self) -> None:
        self._timer.cancel()
        self.pools.close()
        await self.purse.close()
        await self.larder.close()
        await self.resilience.close()
        self.journal.close()
        self.controls.close()
        self.crossroads.close()
        self.links.close()


def links_of(config: Config, state: Path) -> LocalTable | SharedTable:
    """What joins the calls of a run: in memory where one worker sees them all, else in a file they share."""
    if config.workers == 1:
        return LocalTable(config.identity.links)
    return SharedTable(state / "links", config.identity.links)


def spec_of(name: str, upstream: Upstream, prices: PriceTable) -> Spec:
    """An upstream of the configuration as the stages need it."""
    url = urlsplit(upstream.url)
    host = url.hostname or ""
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    provider = provider_stated(upstream) or prices.provider_of(name, host, url.path)
    bracketed = f"[{host}]" if ":" in host else host
    stated = bracketed if url.port is None else f"{bracketed}:{url.port}"
    return Spec(
        name=name,
        family=upstream.dialect,
        target=Target(name, provider, host, port, tls, url.path.rstrip("/").encode()),
        host=stated.encode(),
        auth=auth_lines(upstream.dialect, host, upstream.key),
        headers=tuple((key.encode(), value.encode()) for key, value in upstream.headers.items()),
        inject_usage=upstream.inject_usage,
        drain=drains(upstream),
        drain_seconds=upstream.drain_seconds,
        drain_usd=upstream.drain_usd,
        propagate_trace=upstream.propagate_trace,
        droppable=upstream.droppable,
    )


def alias_of(alias: Alias | str) -> tuple[str, str]:
    return (alias, "") if isinstance(alias, str) else (alias.model, alias.upstream or "")


def downshift_of(loops: Loops) -> tuple[str | None, str | None, int | None] | None:
    step = loops.downshift_to
    return None if step is None else (step.model, step.effort, step.max_tokens)


def secrets_of(config: Config) -> list[str]:
    """What must never stand in a record."""
    redis = (config.spending.redis or "", config.cache.redis or "")
    found = [config.admin_token or "", *[word for url in redis for word in passwords(url)]]
    for upstream in config.upstreams.values():
        found += [upstream.key or "", *upstream.headers.values()]
    found += secrets_of_tools(config)
    return [secret for secret in found if len(secret) >= 8]
