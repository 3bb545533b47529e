"""Where to cut: the lowest logit from which on the expected share of wrong hits stays within the target. Pure.

Theory of operation
* Evidence are candidates whose truth became known, each with the logit it had *before* its label was learned: no
  model is judged on what it was taught with. Misses come whole, hits as the sample that was verified.
* Which hits are verified depends on their logit and on chance, on nothing else. So within a narrow band of logits the
  labelled ones stand for all; how many there are of each band is known from all candidates, labelled or not
  (post-stratification). That says far more than to weigh each label by the hits it stands for.
* Far above the cut there are few labels, and nearly none is wrong. A calibration of the chance by the logit (Platt
  1999), fitted to all evidence, says what to expect there; it counts like `PRIOR` labels in each band.
* What is held against the target is not the estimate but `CAUTION` standard deviations above it.
* Without `ENOUGH` labels above it there is no cut: the scope stays with exact answers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from gateway.policy.semantic_evidence import Seen
from gateway.policy.semantic_learner import sigmoid

ENOUGH = 60.0
PRIOR = 25.0
CAUTION = 1.0
_STEPS = 12
_BAND, _GROWTH = 20, 1.2  # labels of the topmost band, and how bands grow downwards


def choose(
    evidence: Sequence[Seen],
    population: Sequence[float],
    target: float,
    enough: float = ENOUGH,
    *,
    prior: float = PRIOR,
    caution: float = CAUTION,
) -> float:
    """The cut as a logit, infinite where the evidence allows none.

    `population`: the logits of all candidates of late. `target`: tolerated share of wrong hits.
    """
    if len(evidence) < enough:
        return math.inf
    scale, shift = calibrate(evidence)
    everyone = sorted(population)
    cut, labels, upper = math.inf, 0.0, math.inf
    hits = wrong = variance = 0.0
    for band in _bands(sorted(evidence, key=_logit, reverse=True)):
        edge = band[-1].logit
        inside = bisect_left(everyone, upper) - bisect_left(everyone, edge)
        upper = edge
        expected = sum([1 - sigmoid(scale * seen.logit + shift) for seen in band]) / len(band)
        known = sum([seen.weight for seen in band])
        faults = sum([seen.weight for seen in band if not seen.right])
        share = (faults + expected * prior) / (known + prior)
        labels += len(band)
        hits += inside
        wrong += inside * share
        variance += inside * inside * share * (1 - share) / (known + prior + 1)
        if hits and labels >= enough and (wrong + caution * math.sqrt(variance)) / hits <= target:
            cut = edge
    return cut


def _logit(seen: Seen) -> float:
    return seen.logit


def _bands(ordered: Sequence[Seen]) -> list[Sequence[Seen]]:
    found, start, size = [], 0, float(_BAND)
    while start < len(ordered):
        end = min(len(ordered), start + int(size))
        found.append(ordered[start:end])
        start, size = end, size * _GROWTH
    return found


def calibrate(evidence: Sequence[Seen]) -> tuple[float, float]:
    """Scale and shift by which logits become those of observed frequencies; held near 1 and 0 by a weak prior."""
    scale, shift = 1.0, 0.0
    for _ in range(_STEPS):
        g_scale, g_shift, h_aa, h_ab, h_bb = scale - 1.0, shift, 1.0, 0.0, 1.0
        for seen in evidence:
            logit = seen.logit
            chance = sigmoid(scale * logit + shift)
            error, curve = chance - seen.right, chance * (1 - chance)
            g_scale += error * logit
            g_shift += error
            h_aa += curve * logit * logit
            h_ab += curve * logit
            h_bb += curve
        determinant = h_aa * h_bb - h_ab * h_ab
        move_scale = (h_bb * g_scale - h_ab * g_shift) / determinant
        move_shift = (h_aa * g_shift - h_ab * g_scale) / determinant
        scale -= max(-1.0, min(1.0, move_scale))
        shift -= max(-1.0, min(1.0, move_shift))
        if abs(move_scale) + abs(move_shift) < 1e-4:
            break
    return max(scale, 0.05), shift
