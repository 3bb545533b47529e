"""Evidence that a canary is worse than what it would replace, or that it is not; valid however often one looks. Pure.

Theory of operation
* A hash gives each new run to the canary with a known chance `share`. If the canary changes nothing, then whether a run
  shows a bad sign (a failed call, a slow one, ...) is independent of its arm, so of the runs that do show it a share
  `share` is of the canary: exactly, whatever the rate is, however it drifts, and however the calls of one run hang
  together, for each run counts once. (Randomisation as the basis of the test: Fisher 1935. The same conditioning as in
  the safe logrank test, ter Schure, Perez-Ortiz, Ly and Grunwald 2020, arXiv:2011.06931.)
* A bet on each such run, at fair odds under that hypothesis: if bad signs are `ratio` times as common in the canary,
  the next one is of the canary with the chance `tilted(share, ratio)`. The capital of a mixture of such bets is an
  e-process: the chance that it ever reaches 1 / alpha is at most alpha, also where the canary is better (Ville 1939;
  testing by betting: Shafer 2021; Waudby-Smith and Ramdas 2024, arXiv:2010.09686).
* Several signs: the weighted mean of e-processes is one (Vovk and Wang 2021, arXiv:1912.06116), so one alpha holds for
  all of them together.
* That the canary is *not* worse is the same bet the other way round: against a canary with `ratio` times the bad signs,
  or with more of them than a share `rate` of its runs.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

# Ratios that are bet on, each with its part of the capital.
RATIOS = ((1.5, 0.2), (2.0, 0.25), (3.0, 0.3), (6.0, 0.15), (20.0, 0.1))
_CAP = 700.0  # of a logarithm, so that `exp` never overflows


def tilted(share: float, ratio: float) -> float:
    """The chance that a bad run is of the canary, where bad runs are `ratio` times as common there."""
    return ratio * share / (ratio * share + 1 - share)


class Worse(Struct):
    """The capital of the bets that the canary is worse, of one sign."""

    logs: list[float] = field(default_factory=lambda: [0.0] * len(RATIOS))
    canary: int = 0  # runs that showed it
    rest: int = 0

    def see(self, canary: bool, share: float) -> None:
        """One more run shows the sign. `share`: the chance with which that run was given to the canary."""
        self.canary += canary
        self.rest += not canary
        for index, (ratio, _) in enumerate(RATIOS):
            chance = tilted(share, ratio)
            self.logs[index] += math.log(chance / share) if canary else math.log((1 - chance) / (1 - share))

    @property
    def value(self) -> float:
        return sum([part * math.exp(min(log, _CAP)) for log, (_, part) in zip(self.logs, RATIOS, strict=True)])


class NotWorse(Struct):
    """The capital of the bets that the canary is not `ratio` times worse, and that its rate stays below `rate`."""

    ratio: float
    rate: float
    relative: float = 0.0  # logarithms
    absolute: float = 0.0

    def see(self, canary: bool, share: float) -> None:
        """One more run shows the sign."""
        chance = tilted(share, self.ratio)
        self.relative += math.log(share / chance) if canary else math.log((1 - share) / (1 - chance))
        if canary:
            self.absolute += math.log(self._bet / self.rate) - math.log((1 - self._bet) / (1 - self.rate))

    def begin(self) -> None:
        """One more run of the canary, good as long as it shows nothing."""
        self.absolute += math.log((1 - self._bet) / (1 - self.rate))

    @property
    def _bet(self) -> float:
        return self.rate / 4

    @property
    def value(self) -> float:
        """Two bets on half the capital each: either is enough to see that it is not worse."""
        return (math.exp(min(self.relative, _CAP)) + math.exp(min(self.absolute, _CAP))) / 2
