"""The table of names, the code, the page, dashboards and alerts name the same things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.schema import Telemetry
from gateway.recorder import names, names_span
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.names_doc import exposed_name, markdown

ROOT = Path(__file__).parent.parent
_METRIC = re.compile(r"\b((?:tollgate|gen_ai)_[a-z0-9_]+)\b")
_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_info")


def base(name: str) -> str:
    for suffix in _SUFFIXES:
        if name not in names.METRICS:
            name = name.removesuffix(suffix)
    return name


def files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in {".json", ".yaml", ".yml"})


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "telemetry.md").read_text() == markdown()


def test_every_metric_name_in_the_page_is_one_of_the_table() -> None:
    known = {exposed_name(metric) for metric in names.METRICS.values()} | set(names.LABEL_ATTRIBUTES)
    found = {name for name in re.findall(r"`((?:tollgate|gen_ai)_[a-z0-9_]+)`", markdown()) if name not in known}
    assert not found


def test_every_metric_in_dashboards_and_alerts_exists() -> None:
    labels = {label for metric in names.METRICS.values() for label in metric.labels}
    missing = {
        (path.name, name)
        for path in files("dashboards", "alerts")
        for name in _METRIC.findall(path.read_text())
        if base(name) not in names.METRICS and name not in labels
    }
    assert not missing


def test_every_metric_in_the_papers_exists() -> None:
    """A name that ends in `_` stands for a family of them; `tollgate_code` is a field of errors."""
    labels = {label for metric in names.METRICS.values() for label in metric.labels}
    missing = {
        (path.name, name)
        for path in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "alerts" / "RUNBOOK.md", ROOT / "README.md")
        for name in re.findall(r"(?<![\w.:/-])((?:tollgate|gen_ai)_[a-z0-9_]+)\b", path.read_text())
        if base(name) not in names.METRICS
        and name not in labels | {"tollgate_code"}
        and not (name.endswith("_") and any(known.startswith(name) for known in names.METRICS))
    }
    assert not missing


@pytest.mark.parametrize("metric", names.METRICS.values(), ids=lambda metric: metric.name)
def test_names_follow_the_rules(metric: names.Metric) -> None:
    assert re.fullmatch(r"(tollgate|gen_ai)_[a-z0-9_]+", metric.name)
    assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
    assert metric.help.endswith(".")
    assert not {"run", "run_id", "trace_id", "user", "path", "prompt", "client"} & set(metric.labels)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert all(float(bound * metric.scale).is_integer() or metric.scale > 1 for bound in metric.buckets)
    if metric.view is not None:
        source = names.METRICS[metric.view.of]
        assert source.view is None
        assert source.buckets == metric.buckets
        assert tuple(label for label in source.labels if label not in metric.view.drop) == metric.labels


def test_otlp_names_are_unique() -> None:
    assert len({metric.otel_name for metric in names.METRICS.values()}) == len(names.METRICS)


def test_every_family_is_counted_somewhere() -> None:
    """A name in the table that no code spells would be a promise nobody keeps."""
    code = "".join(
        path.read_text() for path in (ROOT / "gateway" / "recorder").glob("*.py") if not path.name.startswith("names")
    )
    composed = {name for name in names.METRICS if name.startswith("gen_ai_client_inference_usage_")}
    assert "gen_ai_client_inference_usage_" in code
    for metric in names.METRICS.values():
        if metric.view is None and metric.name not in composed and metric.kind not in ("gauge", "info"):
            assert f'"{metric.name}"' in code, metric.name


def test_every_span_attribute_is_used_and_ours_are_explained() -> None:
    code = "".join((ROOT / "gateway" / "recorder").joinpath(name).read_text() for name in (
        "traces_spans.py", "traces_runs.py", "traces_content.py", "traces_conventions.py"
    ))  # fmt: skip
    attributes = {name: value for name, value in vars(names_span.Span).items() if name.isupper()}
    assert {name for name in attributes if f"Span.{name}" not in code} == set()
    assert {value for value in attributes.values() if value.startswith("tollgate.")} == set(names_span.SPAN_HELP)
    words = ("openinference", "llm.", "embedding.", "mlflow.")
    others = {value for value in attributes.values() if value.startswith(words)}
    assert others | {"session.id", "tool.name"} == set(names_span.CONVENTIONS_HELP)
    assert len(set(attributes.values())) == len(attributes)


def test_nothing_but_the_table_is_exposed() -> None:
    body, _ = MetricsProjection(Telemetry(), dict, lambda: 0.0).render()
    families = set(re.findall(r"^# TYPE (\S+)", body.decode(), re.M))
    assert families == {exposed_name(metric) for metric in names.METRICS.values() if metric.kind != "gauge"} | {
        "tollgate_active_runs",
        "tollgate_active_run_cost_usd",
        "tollgate_active_run_steps",
    }
