"""What dashboards are made of: selectors that only say names of the table, panels in rows, variables, links."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from gateway.recorder.names import METRICS

SOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
FILTERS = ("tenant", "agent", "model")
ALWAYS = ("job", "instance")
RATE = "$__rate_interval"
_SUFFIX = re.compile(r"_(total|bucket|count|sum|info)\Z")
WIDTH = 24
HEIGHT = {"stat": 4, "series": 8, "table": 8, "bars": 8}
TITLES = {
    "overview": "Overview",
    "costs": "Cost & budgets",
    "agents": "Agents & runs",
    "models": "Models & upstreams",
    "tools": "Tools",
    "cache": "Cache & routing",
    "gateway": "Gateway",
}


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """`kind`: stat, series, table or bars; `width` in columns of 24; `low` and `high`: of the axis or the bar."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "series"
    width: int = 8
    stacked: bool = False
    exemplars: bool = False
    low: float | None = 0
    high: float | None = None
    steps: tuple[tuple[float, str], ...] = ()  # from so much on this colour
    base: str = "green"  # below the first of them
    hidden: tuple[str, ...] = ()  # columns of a table that say nothing


@dataclass(frozen=True)
class Board:
    """`filters`: which of tenant, agent and model can be chosen."""

    uid: str
    description: str
    rows: dict[str, tuple[Panel, ...]]
    filters: tuple[str, ...] = FILTERS
    more: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"Tollgate / {TITLES[self.uid]}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows.values() for panel in row)


def pick(name: str, *conditions: str, filters: tuple[str, ...] = FILTERS) -> str:
    """`name` as a query spells it, of the chosen job and instance, and of the chosen tenant, agent and model where it
    tells them apart. Raises KeyError for what is not in the table of names."""
    base = name if name in METRICS else _SUFFIX.sub("", name)
    labels = METRICS[base].labels
    for condition in conditions:
        label = re.split(r"[=!~]", condition)[0]
        if label not in (*labels, "le"):
            raise KeyError(f"{name} has no label {label}")
    chosen = [f'{label}=~"${label}"' for label in (*ALWAYS, *filters) if label in ALWAYS or label in labels]
    return f"{name}{{{', '.join([*conditions, *chosen])}}}"


def rate(name: str, *conditions: str, by: str = "", every: str = RATE) -> str:
    return _sum(by, f"rate({pick(name, *conditions)}[{every}])")


def grown(name: str, *conditions: str, by: str = "", over: str = "$__range") -> str:
    return _sum(by, f"increase({pick(name, *conditions)}[{over}])")


def quantiles(name: str, *conditions: str, by: str = "") -> tuple[Query, ...]:
    """P50, P95 and P99 of a histogram."""
    group = f"le, {by}" if by else "le"
    tail = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    return tuple(
        Query(f"histogram_quantile({q}, {rate(f'{name}_bucket', *conditions, by=group)})", f"P{q * 100:g}{tail}")
        for q in (0.5, 0.95, 0.99)
    )


def _sum(by: str, expr: str) -> str:
    """What has no model, as a tool, has a name all the same."""
    summed = f"sum by ({by}) ({expr})" if by else f"sum ({expr})"
    return f'label_replace({summed}, "model", "(no model)", "model", "")' if "model" in by.split(", ") else summed


def or_none(expr: str) -> str:
    """0 where nothing was ever counted: events that may never come."""
    return f"{expr} or vector(0)"


# -- building -----------------------------------------------------------------------------------------------------


def build(board: Board) -> str:
    """The JSON that Grafana loads from a file."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"tollgate-{board.uid}")
        .description(board.description)
        .tags(["tollgate"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(board))
        .annotations(_annotations())
        .link(
            dashboard.DashboardLink("Tollgate")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["tollgate"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )
    for uid, title in TITLES.items():
        if uid != board.uid:
            made = made.link(
                dashboard.DashboardLink(title)
                .type(models.DashboardLinkType.LINK)
                .url(f"/d/tollgate-{uid}")
                .keep_time(True)
                .include_vars(True)
            )
    document = json.loads(JSONEncoder(sort_keys=True).encode(_placed(made.build(), board)))
    for variable in document["templating"]["list"]:
        for stray in ("auto", "auto_count", "auto_min"):  # of intervals alone; the encoder writes them for all
            variable.pop(stray, None)
    return json.dumps(document, sort_keys=True, indent=1) + "\n"


def _placed(built: models.Dashboard, board: Board) -> models.Dashboard:
    """Rows and panels from top to bottom, with ids and places of their own."""
    panels: list[Any] = []
    top = 0
    for title, row in board.rows.items():
        place = models.GridPos(h=1, w=WIDTH, x=0, y=top)
        panels.append(models.RowPanel(title=title, collapsed=False, id_val=len(panels) + 1, grid_pos=place, panels=[]))
        left, top, height = 0, top + 1, 0
        for panel in row:
            if left + panel.width > WIDTH:
                left, top, height = 0, top + height, 0
            height = max(height, HEIGHT[panel.kind])
            place = models.GridPos(h=HEIGHT[panel.kind], w=panel.width, x=left, y=top)
            panels.append(_panel(panel).id(len(panels) + 1).grid_pos(place).build())
            left += panel.width
        top += height
    built.panels = panels
    return built


def _panel(panel: Panel) -> Any:
    kinds: dict[str, Any] = {
        "stat": stat.Panel,
        "series": timeseries.Panel,
        "table": table.Panel,
        "bars": bargauge.Panel,
    }
    made = kinds[panel.kind]().title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    if panel.low is not None:
        made = made.min(panel.low)
    if panel.high is not None:
        made = made.max(panel.high)
    steps = [models.Threshold(value=None, color=panel.base)]
    steps += [models.Threshold(value=value, color=color) for value, color in panel.steps]
    made = made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + index)).datasource(SOURCE)
        target = target.legend_format(query.legend or "__auto")
        if panel.kind == "series":
            target = target.range().exemplar(panel.exemplars)
        else:
            target = target.instant().format(
                PromQueryFormat.TABLE if panel.kind == "table" else PromQueryFormat.TIME_SERIES
            )
        made = made.with_target(target)
    return _drawn(made, panel)


def _drawn(made: Any, panel: Panel) -> Any:
    if panel.kind == "series":
        legend = shared.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE)
        legend = legend.placement(common.LegendPlacement.BOTTOM).show_legend(True).calcs(["lastNotNull", "max", "mean"])
        tooltip = shared.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        made = made.legend(legend).tooltip(tooltip).line_width(1).fill_opacity(10)
        made = made.show_points(common.VisibilityMode.NEVER)
        if panel.stacked:
            made = made.stacking(shared.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(40)
    elif panel.kind == "table" and panel.hidden:
        hidden = {"excludeByName": dict.fromkeys(panel.hidden, True)}
        made = made.with_transformation(models.DataTransformerConfig(id_val="organize", options=hidden))
    elif panel.kind in ("stat", "bars"):
        made = made.reduce_options(shared.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    return made


def _variables(board: Board) -> list[Any]:
    found: list[Any] = [dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")]
    known = {
        "job": "label_values(tollgate_build_info, job)",
        "instance": 'label_values(tollgate_build_info{job=~"$job"}, instance)',
        "tenant": 'label_values(tollgate_cost_usd_total{job=~"$job"}, tenant)',
        "agent": 'label_values(tollgate_cost_usd_total{job=~"$job"}, agent)',
        "model": 'label_values(tollgate_requests_total{job=~"$job"}, model)',
    }
    chosen = [
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(known[name])
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
        for name in (*ALWAYS, *board.filters)
    ]
    return [*found, *chosen]


ANNOTATIONS = {
    "Deploys": ("blue", "count by (version) (tollgate_build_info) unless count by (version) "
                "(tollgate_build_info offset 5m)", "Version {{version}}"),
    "Reloads": ("green", "changes(tollgate_config_last_reload_success_timestamp_seconds[2m]) > 0",
                "Configuration loaded: {{instance}}"),
    # One that was seen running just before; else the decisions of long ago come again with each start.
    "Canary decisions": ("purple", 'max by (canary, state) (tollgate_canary_state{state!="running"} == 1 and on (job, '
                         'instance, canary) max_over_time(tollgate_canary_state{state="running"}[5m]) == 1)',
                         "Canary {{canary}}: {{state}}"),
    "Pages": ("red", 'ALERTS{alertname=~"Tollgate.*", alertstate="firing", severity="page"}', "{{alertname}}"),
}  # fmt: skip


def _annotations() -> list[Any]:
    return [
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .step("60s")
        .title_format(title)
        for name, (color, expr, title) in ANNOTATIONS.items()
    ]
