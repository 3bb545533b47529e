"""What is measured: the gateway, and what stands beside it in the same run. All run at the same time, in turns loaded.

The process that carries the traffic has a core of its own. Load generator, upstream, the gateway's recorder and this
program share the other one.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.testing.gateway import RunningGateway, free_port
from tests.bench import bodies, load, machine

START_SECONDS = 120  # LiteLLM takes its time
SETTLE_SECONDS = 15.0
CHAT = "/v1/chat/completions"
LITELLM_KEY = "sk-bench-6f1c2a9e4d7b4805b3e1f0a2c9d8e7f6"
LITELLM = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:%PORT%/v1", api_key: sk-bench}
litellm_settings: {telemetry: false}
general_settings: {master_key: %KEY%}
"""
PLENTY = 1_000_000  # USD: limits that count everything and refuse nothing
LIMITED = {  # every scope, and its run
    "budgets": [
        {"scope": scope, "usd": PLENTY, "per": per}
        for scope, per in (
            ("global", "month"),
            ("team", "day"),
            ("key", "day"),
            ("agent", "hour"),
            ("model", "day"),
            ("upstream", "day"),
        )
    ],
    "runs": {"budget_usd": PLENTY, "max_calls": 10**9},
    "limits": {"rates": [{"scope": "key", "rpm": 10**8}]},
}
GUARDED = {  # every call passes a breaker and needs a place in a pool
    "breakers": {"enabled": True, "refuse": True, "slow_seconds": 20},
    "priorities": [{"agent": "nightly-*", "priority": "batch"}],
    "bulkheads": {"tools": {"agent": "tool-*", "max": 20}, "agents": {"max": 1000, "each": "model"}},
    "overload": {"lag_seconds": 5},
}
RESILIENT = {  # and is routed, and has a fallback
    **GUARDED,
    "routes": [{"model": "gpt-*", "to": ["gpt-4o-mini", "gpt-4.1-mini"], "by": "latency"}],
    "fallbacks": [{"model": "gpt-*", "to": [{"model": "gpt-4.1"}]}],
}
CACHED = {"cache": {"exact": {"enabled": True, "sampled": "all"}}}
REFRESH = ("cache-control: no-cache",)  # asked, keyed and stored like a miss, every time
LITELLM_ENV = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_DOCS": "True",
}


@dataclass
class Target:
    name: str
    port: int
    carriers: list[int] = field(default_factory=list)  # processes that carry traffic; none: the upstream itself
    others: list[int] = field(default_factory=list)  # the rest of the gateway
    gate: RunningGateway | None = None
    headers: Sequence[str] = ()
    slow: bool = False  # needs longer slices to have enough calls in them


class Rig:
    """Starts everything, and ends it. `with Rig(names, gateway_core, load_core) as rig: rig.targets[...]`."""

    def __init__(self, names: Sequence[str], gateway_core: int, load_core: int) -> None:
        self.gateway_core, self.load_core = gateway_core, load_core
        self.directory = Path(tempfile.mkdtemp(prefix="tollgate-bench-"))
        self.directory.chmod(0o755)  # nginx's worker is somebody else
        self.targets: dict[str, Target] = {}
        self.left_out: dict[str, str] = {}
        self._names = names
        self._stack = contextlib.ExitStack()
        self.all_cores = os.sched_getaffinity(0)

    def __enter__(self) -> Rig:
        os.sched_setaffinity(0, {self.load_core})
        try:
            bodies.write(self.directory)
            self.upstream = free_port()
            self._spawn("mock", [str(load.BUILD / "mock_llm"), "--port", str(self.upstream)], self.upstream, {})
            for name in self._names:
                try:
                    self._start(name)
                except load.BenchFailed as fault:
                    self.left_out[name] = str(fault)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        os.sched_setaffinity(0, self.all_cores)

    # -- starting

    def _start(self, name: str) -> None:
        if name == "direct":
            self.targets[name] = Target(name, self.upstream)
        elif name == "tollgate":
            self.targets[name] = self.gateway()[1]
        elif name == "tollgate_limited":
            self.targets[name] = replace(self.gateway(limits=LIMITED)[1], name=name)
        elif name == "tollgate_resilient":
            self.targets[name] = replace(self.gateway(limits=RESILIENT)[1], name=name)
        elif name == "tollgate_guarded":
            self.targets[name] = replace(self.gateway(limits=GUARDED)[1], name=name)
        elif name == "tollgate_cached":
            self.targets[name] = replace(self.gateway(limits=CACHED)[1], name=name)
        elif name == "tollgate_refreshed":
            self.targets[name] = replace(self.gateway(limits=CACHED)[1], name=name, headers=REFRESH)
        elif name == "nginx":
            self._nginx()
        elif name in ("litellm", "litellm granian"):
            self._litellm(name)
        elif name == "portkey":
            self._portkey()
        else:
            self._proxy(name)

    def gateway(
        self, stack: contextlib.ExitStack | None = None, limits: Mapping[str, Any] | None = None
    ) -> tuple[RunningGateway, Target]:
        """A gateway with everything switched on, its worker on one core and the rest of it on the other."""
        gate = (stack or self._stack).enter_context(
            RunningGateway(self.upstreams(), telemetry=self.telemetry(), **(limits or {}))
        )
        workers = gate.pids("gateway.worker")
        others = [pid for pid in gate.processes() if pid not in workers]
        machine.pin(others, self.load_core)
        machine.pin(workers, self.gateway_core)
        port = int(gate.config["listen"].rpartition(":")[2])
        return gate, Target("tollgate", port, workers, others, gate)

    def upstreams(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.upstream}"
        return {name: {"dialect": name, "url": url, "provider": name} for name in ("openai", "anthropic")}

    def telemetry(self) -> dict[str, Any]:
        return {"otlp": {"endpoint": f"http://127.0.0.1:{self.upstream}"}}

    def _nginx(self) -> None:
        place = self.directory / "nginx"
        place.mkdir(mode=0o755)
        port = free_port()
        text = (load.HERE / "nginx.conf").read_text()
        text = text.replace("%PORT%", str(port)).replace("%UPSTREAM%", str(self.upstream))
        (place / "nginx.conf").write_text(text)
        self._server("nginx", [machine.nginx(), "-p", f"{place}/", "-e", "stderr", "-c", "nginx.conf"], port)

    def _proxy(self, name: str) -> None:
        port = free_port()
        env = {"PORT": str(port), "UPSTREAM_PORT": str(self.upstream)}
        self._server(name, [sys.executable, "-m", f"tests.bench.proxies.{name}"], port, env)

    def _litellm(self, name: str) -> None:
        port = free_port()
        config = self.directory / "litellm.yaml"
        config.write_text(LITELLM.replace("%PORT%", str(self.upstream)).replace("%KEY%", LITELLM_KEY))
        words = [os.environ["BENCH_LITELLM"], "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        words += ["--num_workers", "1", *(["--run_granian"] if "granian" in name else [])]
        self._server(name, words, port, LITELLM_ENV, (f"authorization: Bearer {LITELLM_KEY}",), warm=5, slow=True)

    def _portkey(self) -> None:
        port = free_port()
        words = ["node", os.environ["BENCH_PORTKEY"], f"--port={port}", "--headless"]
        headers = (
            "x-portkey-provider: openai",
            f"x-portkey-custom-host: http://127.0.0.1:{self.upstream}/v1",
            "authorization: Bearer sk-bench",
        )
        self._server("portkey", words, port, {"NODE_ENV": "production"}, headers, warm=14, slow=True)

    def _server(
        self,
        name: str,
        words: Sequence[str],
        port: int,
        env: Mapping[str, str] | None = None,
        headers: Sequence[str] = (),
        *,
        warm: float = 1.0,
        slow: bool = False,
    ) -> None:
        pid = self._spawn(name, words, port, env or {}, core=self.gateway_core)
        target = Target(name, port, [pid], headers=headers, slow=slow)
        self.warm(target, warm)
        target.carriers = machine.tree(pid)
        self.targets[name] = target

    def warm(self, target: Target, seconds: float) -> None:
        """Raises BenchFailed where it gives no answers."""
        end = time.monotonic() + START_SECONDS
        body = self.directory / "chat.json"
        while not load.run(self.load_core, target.port, body, CHAT, target.headers, conns=1, count=1, secs=5)["ok"]:
            if time.monotonic() > end:
                raise load.BenchFailed(f"{target.name} answers, but not with 2xx: {self.log(target.name)}")
            time.sleep(0.5)
        load.run(self.load_core, target.port, body, CHAT, target.headers, conns=32, secs=seconds)

    def _spawn(
        self, name: str, words: Sequence[str], port: int, env: Mapping[str, str], core: int | None = None
    ) -> int:
        core = self.load_core if core is None else core
        with (self.directory / f"{name}.log").open("wb") as log:
            try:
                process = subprocess.Popen(
                    ["taskset", "-c", str(core), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **env},
                    start_new_session=True,
                )
            except OSError as error:
                raise load.BenchFailed(f"{name}: {error}") from None
        self._stack.callback(stop, process)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return process.pid
            time.sleep(0.02)
        raise load.BenchFailed(f"{name} does not listen: {self.log(name)}")

    def log(self, name: str) -> str:
        """The end of what a process wrote."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace")[-600:].strip() if path.exists() else ""

    # -- between slices

    def check(self, target: Target) -> None:
        """Raises BenchFailed where a process of the gateway died and was started again: such figures mean nothing."""
        if target.gate is None:
            return
        now = target.gate.processes()
        if died := {*target.carriers, *target.others} - now.keys():
            raise load.BenchFailed(f"processes {died} of the gateway died, now {now}:\n{complaints(target.gate)}")

    def settle(self, target: Target) -> None:
        """Wait until the recorder has nothing left to do, so that it is not in the way of who comes next."""
        end = time.monotonic() + SETTLE_SECONDS
        before = machine.cpu_seconds(target.others)
        while target.others and time.monotonic() < end:
            time.sleep(0.1)
            now = machine.cpu_seconds(target.others)
            if now - before < 0.01:
                return
            before = now


def complaints(gate: RunningGateway) -> str:
    """The last lines that the gateway logged which are not records of calls."""
    with (gate.directory / "output.log").open(errors="replace") as lines:
        return "".join(collections.deque((line for line in lines if '"event":"llm.call"' not in line), 20))


def stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(8)
            return
