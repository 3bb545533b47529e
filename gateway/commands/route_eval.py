"""`tollgate route eval FILE`: what learned selection would be worth on labelled prompts, cross-validated.

FILE has a JSON object in each line: `prompt`, `scores` (model -> 0 to 1), perhaps `domain` and `costs` (model -> any
unit). Nothing is sent anywhere, and nothing of the file is kept.
"""

from __future__ import annotations

import math
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta, Struct

from gateway.commands.route_plot import picture
from gateway.policy.selection import Goal, solve
from gateway.policy.selection_curve import Gap, Point, curve, gap, means, point, single
from gateway.policy.selection_features import Features, features
from gateway.policy.selection_fit import Label
from gateway.policy.selection_trust import teach


class Unusable(OSError):
    """The file cannot be evaluated; the message says why."""


class Line(Struct, frozen=True):
    prompt: str
    scores: dict[str, Annotated[float, Meta(ge=0, le=1)]]
    domain: str = ""
    costs: dict[str, Annotated[float, Meta(ge=0)]] = {}


class Data(Struct, frozen=True):
    """Rows in the order of the file; `scores` and `costs` have a number for each of `models`."""

    models: tuple[str, ...]
    seen: list[Features]
    scores: list[tuple[float, ...]]
    costs: list[tuple[float, ...]]
    domains: list[str]


class Plan(Struct, frozen=True):
    folds: int = 5
    by_domain: bool = False  # whole domains at a time: what is left of it on subjects that were never labelled
    plot: Path | None = None


class Fold(Struct, frozen=True):
    """One part, with what was expected of it by weights that were learned from the others."""

    rows: list[int]
    expected: list[tuple[float, ...]]


def read(path: Path, prices: Mapping[str, float]) -> Data:
    """Raises Unusable. `prices`: of a call of each model, where the file states none; default: equal for all."""
    decoder = msgspec.json.Decoder(Line)
    lines: list[Line] = []
    for number, text in enumerate(path.read_bytes().removeprefix(BOM_UTF8).splitlines(), 1):
        try:
            lines += [decoder.decode(text)] if text.strip() else []
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unusable(f"{path}:{number}: {error}") from None
    if len(lines) < 10:
        raise Unusable(f"{path} has {len(lines)} rows; at least 10 are needed")
    models = _models(path, lines, prices)
    costs = [tuple([line.costs.get(model, prices.get(model, 1.0)) for model in models]) for line in lines]
    dearest = max(means(costs))
    if not dearest:
        raise Unusable("all models cost nothing: there is nothing to choose by")
    return Data(
        models,
        [features(line.prompt) for line in lines],
        [tuple([line.scores[model] for model in models]) for line in lines],
        [tuple([cost / dearest for cost in row]) for row in costs],
        [line.domain for line in lines],
    )


def _models(path: Path, lines: Sequence[Line], prices: Mapping[str, float]) -> tuple[str, ...]:
    """What all rows score, and have a cost of. Raises Unusable."""
    models = tuple(sorted(lines[0].scores))
    if not models:
        raise Unusable(f"{path}: row 1 scores no model")
    priced = bool(prices) or any([line.costs for line in lines])
    for number, line in enumerate(lines, 1):
        if tuple(sorted(line.scores)) != models:
            raise Unusable(f"{path}: row {number} scores other models than the first")
        if priced:
            missing = [model for model in models if model not in prices and model not in line.costs]
            if missing:
                raise Unusable(f"{path}: row {number} states no cost of {', '.join(missing)}, and no --price does")
    strange = sorted(prices.keys() - set(models))
    if strange:
        raise Unusable(f"--price names {', '.join(strange)}, of which {path} has no scores")
    return models


def parts(data: Data, folds: int, by_domain: bool) -> list[list[int]]:
    """Rows of each fold: drawn by a hash of their place, or whole domains at a time."""
    found: list[list[int]] = [[] for _ in range(folds)]
    keys = data.domains if by_domain else [str(row) for row in range(len(data.seen))]
    order = sorted(set(keys), key=lambda key: crc32(key.encode()))
    place = {key: index % folds for index, key in enumerate(order)}
    for row, key in enumerate(keys):
        found[place[key]].append(row)
    return [rows for rows in found if rows]


def learned(
    data: Data, folds: Sequence[Sequence[int]], pool: Sequence[int], told: Callable[[int, int], None]
) -> list[Fold]:
    """Each fold scored by what the rest of the pool teaches. `told`: called with folds done, and to do."""
    found, models = [], range(len(data.models))
    for index, rows in enumerate(folds):
        rest = sorted(set(pool) - set(rows))
        expected = teach([[Label(data.seen[row], data.scores[row][model]) for row in rest] for model in models])
        found.append(Fold(list(rows), [expected.of(data.seen[row]) for row in rows]))
        told(index + 1, len(folds))
    return found


def pick(sequence: Sequence[tuple[float, ...]], rows: Sequence[int]) -> list[tuple[float, ...]]:
    return [sequence[row] for row in rows]


def held(data: Data, folds: Sequence[Fold], extra: Sequence[Fold], goal: Goal) -> list[tuple[Point, Point]]:
    """For each fold (chosen, best single model): the weight of cost is solved on the other folds and on `extra`, so
    the goal is a promise that this fold tests. The best single model is that of the others, too."""
    found = []
    for fold in folds:
        others = [other for other in (*folds, *extra) if other is not fold]
        rows = [row for other in others for row in other.rows]
        scores, costs = pick(data.scores, rows), pick(data.costs, rows)
        top = single(scores)
        points = curve([guess for other in others for guess in other.expected], scores, costs)
        weight = solve(points, Point(0.0, means(scores)[top], means(costs)[top]), goal)
        scores, costs = pick(data.scores, fold.rows), pick(data.costs, fold.rows)
        reference = Point(0.0, means(scores)[top], means(costs)[top])
        found.append((point(fold.expected, scores, costs, weight), reference))
    return found


def report(data: Data, folds: Sequence[Fold], extra: Sequence[Fold], goal: Goal) -> Iterator[str]:
    """What is printed."""
    rows = [row for fold in folds for row in fold.rows]
    expected = [guess for fold in folds for guess in fold.expected]
    scores, costs = pick(data.scores, rows), pick(data.costs, rows)
    quality, spent = means(scores), means(costs)
    top = single(scores)
    yield f"{len(rows)} prompts, {len(data.models)} models, {len(folds)} folds; cost 1 = the dearest model"
    for index in sorted(range(len(quality)), key=lambda index: -quality[index]):
        yield f"  {data.models[index]:40s} quality {quality[index]:.4f}  cost {spent[index]:.3f}"
    reference = Point(0.0, quality[top], spent[top])
    yield f"learned choice against {data.models[top]}, the best single model:"
    yield "  weight of cost   quality  of best    cost  of best"
    for one in distinct(curve(expected, scores, costs)):
        yield (
            f"  {one.weight:14.4f}  {one.quality:8.4f}  {ratio(one.quality, reference.quality):6.1%}  {one.cost:6.3f}"
            f"  {ratio(one.cost, reference.cost):6.1%}"
        )
    yield from goals(data, folds, extra, goal)
    if len(data.models) == 2:
        yield from pairs(data, folds)


def ratio(value: float, whole: float) -> float:
    """A fold may have nothing that the best single model of the others is good for, and that model may cost nothing."""
    if whole:
        return value / whole
    return math.inf if value else 1.0


def distinct(points: Sequence[Point]) -> list[Point]:
    """Without those that choose as the one before."""
    return [one for index, one in enumerate(points) if not index or one.cost != points[index - 1].cost]


def goals(data: Data, folds: Sequence[Fold], extra: Sequence[Fold], goal: Goal) -> Iterator[str]:
    said = [f"quality >= {goal.quality:.0%}"] if goal.quality is not None else []
    said += [f"cost <= {goal.cost:.0%}"] if goal.cost is not None else []
    yield f"goal {', '.join(said)} of the best single model, solved where it is not judged:"
    shares = []
    for index, (got, reference) in enumerate(held(data, folds, extra, goal)):
        share = ratio(got.quality, reference.quality), ratio(got.cost, reference.cost)
        shares.append(share)
        yield f"  fold {index + 1}: quality {share[0]:6.1%}  cost {share[1]:6.1%}  ({len(folds[index].rows)} prompts)"
    quality, spent = means(shares)
    yield f"  mean:   quality {quality:6.1%}  cost {spent:6.1%}"


def pairs(data: Data, folds: Sequence[Fold]) -> Iterator[str]:
    """Two models: the measures of the RouteLLM paper, beside those of the longest prompt to the strong one."""
    strong = single(data.scores)
    weak = 1 - strong
    yield f"{data.models[strong]} in place of {data.models[weak]}, as in the RouteLLM paper (a random router: APGR .5):"
    lines = []
    for index, fold in enumerate(folds):
        need = [guess[strong] - guess[weak] for guess in fold.expected]
        lines.append((f"fold {index + 1}", gap_of(data, fold.rows, need, weak), length_gap(data, fold.rows, weak)))
    rows = [row for fold in folds for row in fold.rows]
    need = [guess[strong] - guess[weak] for fold in folds for guess in fold.expected]
    lines.append(("all", gap_of(data, rows, need, weak), length_gap(data, rows, weak)))
    for name, ours, length in lines:
        yield (
            f"  {name:8s} APGR {ours.apgr:.3f}  CPT50 {ours.cpt50:5.1%}  CPT80 {ours.cpt80:5.1%}"
            f"   by length: APGR {length.apgr:.3f}  CPT50 {length.cpt50:5.1%}  CPT80 {length.cpt80:5.1%}"
        )
    mean = [sum(values) / len(folds) for values in zip(*[(o.apgr, n.apgr) for _, o, n in lines[:-1]], strict=True)]
    yield f"  mean of folds: APGR {mean[0]:.3f}   by length: APGR {mean[1]:.3f}"


def gap_of(data: Data, rows: Sequence[int], need: Sequence[float], weak: int) -> Gap:
    return gap(need, [data.scores[row][weak] for row in rows], [data.scores[row][1 - weak] for row in rows])


def length_gap(data: Data, rows: Sequence[int], weak: int) -> Gap:
    return gap_of(data, rows, [data.seen[row].length for row in rows], weak)


def joined(first: Data, second: Data) -> Data:
    """The rows of both. Raises Unusable."""
    if first.models != second.models:
        raise Unusable("the two files score different models")
    pairs_of = ((getattr(first, name), getattr(second, name)) for name in ("seen", "scores", "costs", "domains"))
    return Data(first.models, *[[*one, *other] for one, other in pairs_of])


def evaluate(path: Path, train: Path | None, prices: Mapping[str, float], goal: Goal, plan: Plan) -> int:
    """Print the report. `train`: learn from another file, and judge all of `path`. Raises Unusable."""
    if plan.plot is not None and not plan.plot.parent.is_dir():
        raise Unusable(f"{plan.plot} cannot be written: {plan.plot.parent} is no directory")
    data = read(path, prices)
    if plan.by_domain and len(set(data.domains)) < 2:
        raise Unusable(f"{path} names fewer than two domains")
    extra: list[Fold] = []
    if train is None:
        found = learned(data, parts(data, plan.folds, plan.by_domain), range(len(data.seen)), progress)
    else:
        before = read(train, prices)
        data, count = joined(before, data), len(before.seen)
        halves = parts(before, 2, False)
        *extra, last = learned(data, [*halves, range(count, len(data.seen))], range(count), progress)
        found = [last]
    for line in report(data, found, extra, goal):
        print(line)
    if plan.plot is not None:
        rows = [row for fold in found for row in fold.rows]
        expected = [guess for fold in found for guess in fold.expected]
        scores, costs = pick(data.scores, rows), pick(data.costs, rows)
        singles = list(zip(data.models, means(costs), means(scores), strict=True))
        plan.plot.write_text(picture(distinct(curve(expected, scores, costs)), singles))
        print(f"drawn in {plan.plot}")
    return 0


def progress(done: int, of: int) -> None:
    """On standard error, where a person looks at it."""
    if sys.stderr.isatty():
        print(f"\r{done} of {of} folds", end="\n" if done == of else "", file=sys.stderr, flush=True)
    elif done == of or done % max(1, of // 10) == 0:
        print(f"{done} of {of} folds", file=sys.stderr, flush=True)
