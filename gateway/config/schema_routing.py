"""Where calls go that several models or upstreams could answer; part of gateway.config.schema."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.schema_base import Config_, Count, Name, Seconds

Lack = Literal["tools", "images", "json"]
By = Literal["weight", "priority", "latency", "cost", "headroom", "learned"]
Per = Literal["rule", "agent", "team", "key"]


class RouteTo(Config_, frozen=True):
    """One target. What is not named stays as the client, or an alias, has it."""

    model: str | None = None
    upstream: Name | None = None
    weight: Annotated[float, Meta(gt=0, le=1_000_000)] = 1
    context: Count | None = None  # tokens of a request and its answer; null: what is known of the model
    lacks: tuple[Lack, ...] = ()  # what it cannot do: calls that need it go elsewhere


class CanaryTo(Config_, frozen=True):
    """A target, or a prompt-cache policy, on trial for a share of the runs; see gateway.policy.canary."""

    id: Name  # of this trial: another one begins a new trial
    to: RouteTo | str | None = None
    breakpoints: bool | None = None  # in place of `to`: that of `prompt_cache` for its runs, at the targets of the rule
    share: Annotated[float, Meta(gt=0, le=0.5)] = 0.1
    alpha: Annotated[float, Meta(gt=0, le=0.2)] = 0.01  # chance at most, that one that changes nothing is rolled back
    least_runs: Count = 200  # of its runs, before it is promoted
    ratio: Annotated[float, Meta(gt=1, le=100)] = 2  # so many times as many failures are ruled out before that,
    rate: Annotated[float, Meta(gt=0, lt=1)] = 0.02  # or a share of its runs that fail


class Learn(Config_, frozen=True):
    """What is learned of the targets of a rule, and to which end; see gateway.policy.selection."""

    id: Name  # of what is learned: another one begins anew
    quality: Annotated[float, Meta(gt=0, le=1.5)] | None = None  # at least this share of the best single target's
    cost: Annotated[float, Meta(gt=0, le=1)] | None = None  # at most this share of its cost
    usd_per_day: Annotated[float, Meta(gt=0, le=1_000_000_000)] | None = None  # at most, at the rate calls come in
    per: Per = "rule"  # what is learned of one is not used for another
    labels: str | None = None  # file of labelled prompts to begin with
    explore: Annotated[float, Meta(ge=0, le=0.02)] = 0.02  # share of the calls that take a target by chance
    shadow: Annotated[float, Meta(ge=0, le=0.05)] = 0  # share of those of the first target that another is asked, too


class Cascade(Config_, frozen=True):
    """The cheap target first; where its answer has not the form that was demanded, the next. See stages.cascade."""

    hold_bytes: Annotated[int, Meta(ge=1024, le=8_388_608)] = 262_144  # of an answer that are held back to be checked


class Route(Config_, frozen=True):
    """Where the calls that match all of its patterns go. The first rule that matches counts."""

    to: tuple[RouteTo | str, ...]  # a text is a model
    by: By = "priority"
    model: str = "*"  # as asked for, or as an alias has it
    route: str = "*"  # as records have it: /v1/chat/completions
    upstream: str = "*"
    agent: str = "*"
    agent_version: str = "*"
    key: str = "*"  # name or id of a virtual key
    team: str = "*"
    request_class: str = "*"
    min_tokens: Count | None = None  # of the request, as estimated from its size
    max_tokens: Count | None = None
    tools: bool | None = None  # whether it declares tools
    headers: dict[str, str] = {}  # name: pattern of the value
    hours: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] | None = None  # UTC
    sticky: bool = True  # a run stays with its target
    warm: Seconds = 300  # for so long after its last call, as its provider's prompt cache does
    canary: CanaryTo | None = None
    learn: Learn | None = None
    cascade: Cascade | None = None
