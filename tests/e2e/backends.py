"""Arize Phoenix and MLflow as processes on loopback, and their own APIs read as one kind of span.

`install_backends.sh` puts them under .backends; they send nothing anywhere and keep everything in a directory of ours.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from gateway.testing.gateway import free_port

T = TypeVar("T")

PLACE = Path(os.environ.get("TOLLGATE_BACKENDS") or Path(__file__).parents[2] / ".backends")
START_SECONDS = 300  # of a busy machine: both import a hundred packages and make a database
READ_SECONDS = 60


@dataclass(slots=True)
class Read:
    """A span as a back end shows it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    failed: bool
    session: str = ""
    model: str = ""
    tokens: dict[str, int] = field(default_factory=dict)  # input, output, cache_read, cache_write; those that it knows
    cost: float | None = None  # US dollars


@dataclass(slots=True)
class Trace:
    """What a back end adds up for a whole trace."""

    session: str
    input_tokens: int
    output_tokens: int
    cost: float


def fetch(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=READ_SECONDS) as answer:
        return json.loads(answer.read())


def wait(look: Callable[[], T], good: Callable[[T], bool], seconds: float = 120) -> T:
    """What `look` returns as soon as it is `good`: back ends store what they get in their own time."""
    end = time.monotonic() + seconds
    while not good(seen := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"still not so after {seconds} s: {str(seen)[:4000]}")
        time.sleep(0.5)
    return seen


class Backend:
    """A server of its own virtualenv. Subclasses say how it is started and read."""

    name = ""
    health = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be used here, or ""."""
        marker = PLACE / cls.name / ".installed"
        return "" if marker.exists() else f"{cls.name} is not installed in {PLACE.name}: run `make test-backends`"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "output.log").read_text(errors="replace")[-4000:]

    def program(self, name: str) -> str:
        return str(PLACE / self.name / "bin" / name)

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        raise NotImplementedError

    def ready(self) -> bool:
        """Raises ChildProcessError when it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise ChildProcessError(f"{self.name} ended:\n{self.log}")
        try:
            with urllib.request.urlopen(self.url + self.health, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def __enter__(self) -> Self:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8", **self.environment()}
        with (self.directory / "output.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=self.directory,
                start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(20)
                return
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        process.wait()

    # what a test asks of it; `place` is where the spans of one play are kept apart from others

    def teach(self, model: str, prompt: float, completion: float) -> None:
        """Tell it prices of a model, in US dollars per million tokens, where it cannot do without."""

    def make(self, place: str) -> str:
        """Make room for a play; returns how the back end calls it."""
        raise NotImplementedError

    def otlp(self, place: str) -> tuple[dict[str, Any], dict[str, str]]:
        """(section telemetry.otlp, environment) of a gateway whose spans go there."""
        raise NotImplementedError

    def provider(self, place: str) -> TracerProvider:
        """Of a client whose spans go to the same place; to be shut down."""
        otlp, environ = self.otlp(place)
        project = dict([environ["OTEL_RESOURCE_ATTRIBUTES"].split("=")]) if environ else {}
        made = TracerProvider(resource=Resource({"service.name": "client", **project}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{otlp['endpoint']}/v1/traces", headers=otlp.get("headers"), timeout=120)
        made.add_span_processor(SimpleSpanProcessor(exporter))
        return made

    def spans(self, place: str) -> dict[str, Read]:
        """Span id -> span; all that have arrived."""
        raise NotImplementedError

    def traces(self, place: str) -> dict[str, Trace]:
        """Trace id -> sums."""
        raise NotImplementedError


class Phoenix(Backend):
    """`place` is a project, which comes into being with its first span."""

    name = "phoenix"
    health = "/healthz"

    def command(self) -> list[str]:
        return [self.program("python"), "-m", "phoenix.server.main", "serve"]

    def environment(self) -> dict[str, str]:
        return {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(self.port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_WORKING_DIR": str(self.directory),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
            "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        }

    def teach(self, model: str, prompt: float, completion: float) -> None:
        sides = (("input", "PROMPT", prompt), ("output", "COMPLETION", completion))
        costs = ", ".join(
            f'{{tokenType: "{kind}", kind: {side}, costPerMillionTokens: {usd}}}' for kind, side, usd in sides
        )
        wanted = f'{{name: "{model}", namePattern: "^{model}$", costs: [{costs}]}}'
        self._query(f"mutation {{createModel(input: {wanted}) {{model {{id}}}}}}")
        wait(lambda: self._prices(model), bool)  # it reads its table again every few seconds

    def _prices(self, model: str) -> bool:
        """Whether a span of this model has come to a cost; sends another one."""
        provider, tokens = self.provider("probe"), {"llm.token_count.prompt": 9, "llm.token_count.completion": 9}
        said = {"openinference.span.kind": "LLM", "llm.model_name": model, **tokens}
        with provider.get_tracer("probe").start_as_current_span("probe", attributes=said):
            pass
        provider.shutdown()
        return any(span.cost for span in self.spans("probe").values())

    def make(self, place: str) -> str:
        return place

    def otlp(self, place: str) -> tuple[dict[str, Any], dict[str, str]]:
        environ = {"OTEL_RESOURCE_ATTRIBUTES": f"openinference.project.name={place}"}
        return {"endpoint": self.url, "metrics": False}, environ

    def spans(self, place: str) -> dict[str, Read]:
        if place not in {project["name"] for project in fetch(f"{self.url}/v1/projects")["data"]}:
            return {}
        costs = self._costs(place)
        read = {}
        for span in fetch(f"{self.url}/v1/projects/{place}/spans?limit=1000")["data"]:
            said: Mapping[str, Any] = span["attributes"]
            names = {
                "input": "llm.token_count.prompt",
                "output": "llm.token_count.completion",
                "cache_read": "llm.token_count.prompt_details.cache_read",
                "cache_write": "llm.token_count.prompt_details.cache_write",
            }
            identity = span["context"]["span_id"]
            read[identity] = Read(
                name=span["name"],
                trace_id=span["context"]["trace_id"],
                span_id=identity,
                parent_id=span["parent_id"] or "",
                kind=span["span_kind"],
                failed=span["status_code"] == "ERROR",
                session=said.get("session.id", ""),
                model=said.get("llm.model_name", ""),
                tokens={kind: said[name] for kind, name in names.items() if name in said},
                cost=costs.get(identity),
            )
        return read

    def _query(self, text: str) -> Any:
        answer = fetch(f"{self.url}/graphql", {"query": text})
        assert "errors" not in answer, answer
        return answer["data"]

    def _project(self, place: str, wanted: str) -> Any:
        edges = self._query(f"{{projects(first: 100) {{edges {{node {{name {wanted}}}}}}}}}")["projects"]["edges"]
        (found,) = [edge["node"] for edge in edges if edge["node"]["name"] == place]
        return found

    def _costs(self, place: str) -> dict[str, float]:
        """Cost of each span that it has a price for."""
        wanted = "spans(first: 1000) {edges {node {spanId costSummary {total {cost}}}}}"
        nodes = [edge["node"] for edge in self._project(place, wanted)["spans"]["edges"]]
        found = {node["spanId"]: (node["costSummary"] or {}).get("total", {}).get("cost") for node in nodes}
        return {span_id: cost for span_id, cost in found.items() if cost is not None}

    def traces(self, place: str) -> dict[str, Trace]:
        wanted = (
            "spans(first: 1000) {edges {node {trace {traceId session {sessionId} "
            "costSummary {total {cost}} rootSpan {cumulativeTokenCountPrompt cumulativeTokenCountCompletion}}}}}"
        )
        found = {}
        for edge in self._project(place, wanted)["spans"]["edges"]:
            trace = edge["node"]["trace"]
            root = trace["rootSpan"]
            found[trace["traceId"]] = Trace(
                session=(trace["session"] or {}).get("sessionId", ""),
                input_tokens=int(root["cumulativeTokenCountPrompt"] or 0),
                output_tokens=int(root["cumulativeTokenCountCompletion"] or 0),
                cost=trace["costSummary"]["total"]["cost"] or 0.0,
            )
        return found


class Mlflow(Backend):
    """`place` is the id of an experiment, which every request names in a header."""

    name = "mlflow"
    health = "/health"

    def command(self) -> list[str]:
        store = f"sqlite:///{self.directory}/mlflow.db"
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        artifacts = ["--artifacts-destination", str(self.directory / "artifacts")]
        return [self.program("mlflow"), "server", *where, "--backend-store-uri", store, *artifacts]

    def environment(self) -> dict[str, str]:
        path = f"{PLACE / self.name / 'bin'}:{os.environ['PATH']}"  # it starts its server by name
        return {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def make(self, place: str) -> str:
        return str(fetch(f"{self.url}/api/2.0/mlflow/experiments/create", {"name": place})["experiment_id"])

    def otlp(self, place: str) -> tuple[dict[str, Any], dict[str, str]]:
        return {"endpoint": self.url, "headers": {"x-mlflow-experiment-id": place}, "metrics": False}, {}

    def _infos(self, place: str) -> list[dict[str, Any]]:
        where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": place}}
        asked = {"locations": [where], "max_results": 500}
        return list(fetch(f"{self.url}/api/3.0/mlflow/traces/search", asked).get("traces", []))

    def spans(self, place: str) -> dict[str, Read]:
        read = {}
        for info in self._infos(place):
            answer = fetch(f"{self.url}/api/3.0/mlflow/traces/get?trace_id={info['trace_id']}&allow_partial=true")
            for span in answer["trace"].get("spans", []):
                identity = _hex(span["span_id"])
                said = {item["key"]: _plain(item["value"]) for item in span["attributes"]}
                usage = said.get("mlflow.chat.tokenUsage") or {}
                names = {
                    "input": "input_tokens",
                    "output": "output_tokens",
                    "cache_read": "cache_read_input_tokens",
                    "cache_write": "cache_creation_input_tokens",
                }
                read[identity] = Read(
                    name=span["name"],
                    trace_id=_hex(span["trace_id"]),
                    span_id=identity,
                    parent_id=_hex(span.get("parent_span_id", "")),
                    kind=said.get("mlflow.spanType", ""),
                    failed=span.get("status", {}).get("code") == "STATUS_CODE_ERROR",
                    session=said.get("session.id") or said.get("gen_ai.conversation.id") or "",
                    model=said.get("mlflow.llm.model", ""),
                    tokens={kind: usage[name] for kind, name in names.items() if name in usage},
                    cost=(said.get("mlflow.llm.cost") or {}).get("total_cost"),
                )
        return read

    def traces(self, place: str) -> dict[str, Trace]:
        found = {}
        for info in self._infos(place):
            said = info.get("trace_metadata", {})
            usage = json.loads(said.get("mlflow.trace.tokenUsage", "{}"))
            cost = json.loads(said.get("mlflow.trace.cost", "{}"))
            found[info["trace_id"].removeprefix("tr-")] = Trace(
                session=said.get("mlflow.trace.session", ""),
                input_tokens=usage.get("input_tokens", 0),
                output_tokens=usage.get("output_tokens", 0),
                cost=cost.get("total_cost", 0.0),
            )
        return found


def _hex(text: str) -> str:
    """Ids are bytes of a protobuf message: base64 in its JSON."""
    return base64.b64decode(text).hex()


def _plain(value: Mapping[str, Any]) -> Any:
    """An attribute of MLflow: a protobuf value, whose texts are JSON once more."""
    (found,) = value.values() or ("",)
    if "kvlist_value" in value:
        return {item["key"]: _plain(item["value"]) for item in found["values"]}
    while isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            break
    return found


BACKENDS: dict[str, type[Backend]] = {"phoenix": Phoenix, "mlflow": Mlflow}
