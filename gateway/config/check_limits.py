"""What budgets and rates hold for: those that match nothing are errors of `tollgate check`, doubtful ones warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from gateway.config.address import parse_url
from gateway.config.defaults import provider_stated
from gateway.config.patterns import matches, one_name
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.roster import Roster
from gateway.config.schema import Alias, Budget, Config, Rates, TaperStep, Upstream

NAMED = 4  # names in one line


class Catalogue(Protocol):
    """What is asked of the price catalogue; see gateway.policy.pricing."""

    def knows(self, provider: str, model: str) -> bool: ...

    def guess_provider(self, host: str, url_path: str = "") -> str: ...

    def provider_of(self, upstream: str, host: str, url_path: str = "") -> str: ...

    def names(self) -> frozenset[str]: ...


def unmatched(config: Config, priced: Catalogue, roster: Roster) -> list[Problem]:
    """Budgets and rates that no call can ever fall under. `roster`: the keys and teams there are."""
    found = []
    for path, limit in _limits(config):
        if not _can_match(limit, config, priced, roster):
            known = sorted(_known(limit.scope, config, roster))
            hint = did_you_mean(limit.match, known) or _hint(limit.scope, known)
            found.append(Problem((*path, "match"), reason=f"matches no {limit.scope}", hint=hint))
    return found


def doubts(config: Config, priced: Catalogue) -> Iterator[Problem]:
    """Budgets that hold less, or refuse more, than they seem to."""
    deny = config.spending.unknown_price == "deny"
    for index, budget in enumerate(config.budgets):
        path = ("budgets", str(index))
        if budget.usd is not None and (names := _unpriced(budget, config, priced)):
            what = "are refused" if deny else f"are dealt with as `unknown_price: {config.spending.unknown_price}` says"
            reason = f"no price is known for calls of {_list(names)}, which {what} under a budget in USD"
            yield Problem((*path, "usd"), reason=reason, hint="set their prices under `prices.models`")
        yield from _taper((*path, "taper"), budget.taper, config, priced)
    yield from _taper(("runs", "taper"), config.runs.taper, config, priced)
    if config.loops.downshift_to is not None:
        yield from _step(("loops", "downshift_to"), config.loops.downshift_to, config, priced)
    spending = config.spending
    if spending.on_failure == "open" and spending.local_share * config.workers > 1:
        reason = f"{config.workers} workers may spend more than the whole limit while the store is away"
        yield Problem(("spending", "local_share"), reason=reason)


def coverage(config: Config, priced: Catalogue, roster: Roster) -> list[str]:
    """One line for each budget and rate: how much, and of what."""
    lines = [f"{'.'.join(path)}: {_amount(limit)} {_whose(limit, config, priced, roster)}"
             for path, limit in _limits(config)]  # fmt: skip
    runs = config.runs
    bounds = {"USD": runs.budget_usd, "calls": runs.max_calls, "steps": runs.max_steps, "tools": runs.max_tools,
              "minutes": runs.max_minutes, "levels": runs.max_depth}  # fmt: skip
    said = [f"{bound:g} {unit}" for unit, bound in bounds.items() if bound is not None]
    return [*lines, f"runs: {', '.join(said)} for each run"] if said else lines


def _limits(config: Config) -> Iterator[tuple[Path, Budget | Rates]]:
    yield from ((("budgets", str(index)), budget) for index, budget in enumerate(config.budgets))
    yield from ((("limits", "rates", str(index)), rate) for index, rate in enumerate(config.limits.rates))


def _can_match(limit: Budget | Rates, config: Config, priced: Catalogue, roster: Roster) -> bool:
    """Agents and runs name themselves, and a model that an upstream beyond the catalogue serves may have any name."""
    scope, pattern = limit.scope, limit.match
    if scope in ("global", "agent", "run") or (scope == "key" and pattern == "*"):
        return True  # without keys of ours, each key that clients bring counts by itself
    if scope == "team" and config.identity.tenant_header is not None:
        return True
    if any(_means(limit, name) for name in _known(scope, config, roster)):
        return True
    return scope == "model" and (_any_model(config, priced) or _in_catalogue(limit, priced))


def _means(limit: Budget | Rates, name: str) -> bool:
    """Does it hold for this name, as `policy.limits` takes it?"""
    if limit.scope == "model":
        return matches(one_name(limit.match), one_name(name))
    return matches(limit.match, name)


def _known(scope: str, config: Config, roster: Roster) -> set[str]:
    if scope == "upstream":
        return {*config.upstreams, *(f"tools/{name}" for name in config.tools), *(f"mcp/{name}" for name in config.mcp)}
    if scope == "team":
        return {config.identity.tenant, *roster.teams}
    if scope == "key":
        return set(roster.keys)
    if scope == "model":
        priced = {form for name in config.prices.models for form in (name, name.partition("/")[2]) if form}
        return {*config.aliases, *(_target(alias).model for alias in config.aliases.values()), *priced}
    return set()


def _hint(scope: str, known: list[str]) -> str:
    if scope == "key":
        return "see `tollgate keys list`; `tollgate keys create` makes one"
    return "known: " + _list(known) if known else ""


def _in_catalogue(limit: Budget | Rates, priced: Catalogue) -> bool:
    """Names of the catalogue stand for many: dated and regional forms are known by how they begin."""
    stem = one_name(limit.match).rstrip("*")
    if "*" not in stem and stem and priced.knows("", stem):
        return True
    return any(_means(limit, name) for name in priced.names())


def _any_model(config: Config, priced: Catalogue) -> bool:
    return any(
        upstream.dialect != "opaque" and not _provider(upstream, priced) for upstream in config.upstreams.values()
    )


def _provider(upstream: Upstream, priced: Catalogue) -> str:
    url = parse_url(upstream.url)
    return provider_stated(upstream) or priced.guess_provider(url.hostname or "", url.path)


def _target(alias: Alias | str) -> Alias:
    return alias if isinstance(alias, Alias) else Alias(model=alias)


def _unpriced(budget: Budget, config: Config, priced: Catalogue) -> list[str]:
    """Models or upstreams under this budget whose calls have no price that is sure to be known."""
    if budget.scope == "model":
        found = []
        for name in sorted(_known("model", config, Roster())):
            model = _target(config.aliases.get(name, name)).model
            if _means(budget, name) and not _has_price(model, config, priced):
                found.append(name)
        return found
    pattern = budget.match if budget.scope == "upstream" else "*"
    return [
        name
        for name, upstream in config.upstreams.items()
        if matches(pattern, name) and (upstream.dialect == "opaque" or not _provider(upstream, priced))
    ]


def _has_price(model: str, config: Config, priced: Catalogue) -> bool:
    providers = {provider_of(name, upstream, priced) for name, upstream in config.upstreams.items()}
    return any(priced.knows(provider, model) for provider in providers | {""})


def provider_of(name: str, upstream: Upstream, priced: Catalogue) -> str:
    """Under which provider the calls of an upstream are priced."""
    url = parse_url(upstream.url)
    return provider_stated(upstream) or priced.provider_of(name, url.hostname or "", url.path)


def _taper(path: Path, steps: Iterable[TaperStep], config: Config, priced: Catalogue) -> Iterator[Problem]:
    for index, step in enumerate(steps):
        yield from _step((*path, str(index)), step, config, priced)


def _step(path: Path, step: TaperStep, config: Config, priced: Catalogue) -> Iterator[Problem]:
    if step.model is None or step.model in config.aliases or _has_price(step.model, config, priced):
        return
    reason = f'"{step.model}" is no alias, and no price is known for a model of this name'
    yield Problem((*path, "model"), reason=reason, hint=did_you_mean(step.model, config.aliases))


def _amount(limit: Budget | Rates) -> str:
    if isinstance(limit, Rates):
        units = {"requests": limit.rpm, "tokens": limit.tpm}
        parts = [f"{bound} {unit} per minute" for unit, bound in units.items() if bound is not None]
        return ", ".join(parts + ([f"{limit.concurrency} calls at once"] if limit.concurrency is not None else []))
    parts = [f"{limit.usd:.15g} USD"] if limit.usd is not None else []
    parts += [f"{limit.tokens} tokens"] if limit.tokens is not None else []
    window = "for life" if limit.per == "life" else f"per {'rolling ' if limit.rolling else ''}{limit.per}"
    return f"{' and '.join(parts)} {window}"


def _whose(limit: Budget | Rates, config: Config, priced: Catalogue, roster: Roster) -> str:
    scope, pattern = limit.scope, limit.match
    if scope == "global":
        return "for all calls together"
    whose = f"for each {scope}" + ("" if pattern == "*" else f" {pattern}")
    names = [name for name in sorted(_known(scope, config, roster)) if _means(limit, name)]
    if scope == "model":
        listed = sum(_means(limit, name) for name in priced.names())
        names += [f"{listed} of the catalogue"] if listed else []
    return whose + (f" ({_list(names)})" if names and names != [pattern] else "")


def _list(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
