"""The gateways that go through an outage: ours, and LiteLLM as its documentation says one sets it up for that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from gateway.testing.gateway import RunningGateway, free_port
from tests.bench.outage_world import FIRST, WELL, Provider
from tests.bench.targets import CHAT, LITELLM_ENV, LITELLM_KEY, START_SECONDS, stop

MODEL = "gpt-4o-mini"
PATIENCE = 1.0  # seconds of silence that both wait for
LEFT_ALONE = 5.0  # seconds for which both leave alone what fails: LiteLLM's default and ours
PEERS = ("litellm", "litellm-fallbacks")


@dataclass
class Subject:
    """`ask(control)`: (path, model) of a call that begins at the first upstream, or goes to the other one at once."""

    name: str
    url: str
    normal: tuple[str, str]
    control: tuple[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def running(name: str, first: Provider, well: Provider, peers: Path) -> AsyncIterator[Subject]:
    """Start it, and end it. Raises RuntimeError where it does not become ready."""
    start = _tollgate(first, well) if name == "tollgate" else _litellm(name, first, well, peers)
    async with start as subject:
        yield subject


def settings(first: str, well: str) -> dict[str, Any]:
    """Ours: one line of fallbacks, and time limits. All else are defaults, but `longest`, so that both leave an
    upstream alone for as long."""
    timeouts = {"connect": PATIENCE, "first_byte": PATIENCE, "first_content": PATIENCE, "idle": PATIENCE}
    known = {"dialect": "openai", "provider": "openai", "key": "sk-bench", "timeouts": timeouts}
    return {
        "upstreams": {"openai": {**known, "url": first}, "well": {**known, "url": well}},
        "fallbacks": [{"upstream": "openai", "to": ["well"]}],
        "breakers": {"pause": LEFT_ALONE, "longest": LEFT_ALONE},
        "telemetry": {"log": None},
    }


@contextlib.asynccontextmanager
async def _tollgate(first: Provider, well: Provider) -> AsyncIterator[Subject]:
    async with RunningGateway(**settings(first.url, well.url)) as gate:
        yield Subject("tollgate", gate.url, (CHAT, MODEL), (f"/well{CHAT}", MODEL))


def litellm_settings(first: str, well: str, *, ordered: bool) -> dict[str, Any]:
    """As its documentation on reliability has it: retries, fallbacks, time limits and a cooldown.

    `ordered`: both upstreams are deployments of one model with an `order`, so that a retry finds the second at once;
    else the second is a fallback alone, and a call that fails is retried at the first before. `allowed_fails` is not
    its default, 3, for with that the only deployment of a model is never left alone."""

    def deployment(group: str, url: str, **more: Any) -> dict[str, Any]:
        known = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "sk-bench"}
        return {
            "model_name": group,
            "litellm_params": {**known, "timeout": PATIENCE, "stream_timeout": PATIENCE, **more},
        }

    if ordered:
        models = [deployment(MODEL, first, order=1), deployment(MODEL, well, order=2)]
    else:
        models = [deployment(MODEL, first)]
    return {
        "model_list": [*models, deployment(WELL, well)],
        "router_settings": {
            "num_retries": 2,
            "allowed_fails": 1,
            "cooldown_time": LEFT_ALONE,
            "fallbacks": [{MODEL: [WELL]}],
            "enable_pre_call_checks": True,
        },
        "litellm_settings": {"telemetry": False},
        "general_settings": {"master_key": LITELLM_KEY},
    }


@contextlib.asynccontextmanager
async def _litellm(name: str, first: Provider, well: Provider, peers: Path) -> AsyncIterator[Subject]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tollgate-outage-") as place:
        config, log = Path(place) / "litellm.yaml", Path(place) / "log"
        config.write_text(yaml.safe_dump(litellm_settings(first.url, well.url, ordered=name == "litellm")))
        words = [str(peers / "litellm" / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*words, "--port", str(port), "--num_workers", "1"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **LITELLM_ENV},
                start_new_session=True,
            )
        try:
            subject = Subject(
                name,
                f"http://127.0.0.1:{port}",
                (CHAT, MODEL),
                (CHAT, WELL),
                {"authorization": f"Bearer {LITELLM_KEY}"},
            )
            await _ready(subject, process, log)
            yield subject
        finally:
            await asyncio.to_thread(stop, process)


async def _ready(subject: Subject, process: subprocess.Popen[bytes], log: Path) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(int(START_SECONDS / 0.5)):
            if process.poll() is not None:
                break
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{subject.url}/health/liveliness") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.5)
    raise RuntimeError(f"{subject.name} does not become ready: {log.read_text(errors='replace')[-2000:]}")


def install(peers: Path) -> None:
    """LiteLLM into a virtualenv of its own, unless it is there. Raises subprocess.CalledProcessError."""
    subprocess.run(["sh", str(Path(__file__).parent / "install_peers.sh"), str(peers), "litellm"], check=True)


def version(name: str, peers: Path) -> str:
    """Of what is measured."""
    if name == "tollgate":
        return "this checkout"
    found = sorted((peers / "litellm").glob("lib/python*/site-packages/litellm-*.dist-info"))
    return found[0].name.removeprefix("litellm-").removesuffix(".dist-info") if found else "?"


__all__ = ["FIRST", "PEERS", "WELL", "Subject", "install", "litellm_settings", "running", "settings", "version"]
