"""Questions that differ in one thing that matters, and rewordings that do not: what a cache must tell apart.

Each kind has ways to ask the same. A pair is a question and its near miss; both have answers of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

CITIES = (
    "Lisbon Oslo Denver Boston Madrid Vienna Dublin Prague Warsaw Athens Cairo Lima Quito Havana Seoul Tokyo Hanoi "
    "Delhi Mumbai Perth Sydney Austin Dallas Miami Chicago Phoenix Seattle Geneva Zurich Naples Turin Milan Porto"
)
PEOPLE = "Alice Bruno Carla David Elena Felix Greta Henry Irene Jonas Karin Louis Maria Nadia Oscar Paula Quentin Rosa"
THINGS = (
    "router printer camera laptop heater scanner monitor freezer toaster speaker projector tablet dishwasher radio "
    "thermostat dryer fan drone keyboard washer kettle lamp oven vacuum blender amplifier"
)
# Half of them no list of opposites names.
OPPOSITES = (
    "lock/unlock raise/lower start/stop mute/unmute attach/detach enable/disable connect/disconnect brighten/dim "
    "solder/desolder dampen/dry sharpen/blunt tilt/straighten inflate/deflate moisten/parch tighten/loosen polish/scuff"
)
Slots = dict[str, str]


@dataclass(frozen=True)
class Kind:
    """`ways` are rewordings of each other; `missed` makes the near miss of what stands in the slots."""

    ways: tuple[str, ...]
    drawn: Callable[[random.Random], Slots]
    missed: Callable[[random.Random, Slots], Slots]

    def pair(self, draw: random.Random) -> tuple[Slots, Slots]:
        slots = self.drawn(draw)
        return slots, {**slots, **self.missed(draw, slots)}


def _two(words: str, draw: random.Random) -> Slots:
    one, other = draw.sample(words.split(), 2)
    return {"a": one, "b": other}


def _other(draw: random.Random, words: str, one: str) -> str:
    return draw.choice([word for word in words.split() if word != one])


def _numbered(draw: random.Random) -> Slots:
    return {"a": draw.choice(CITIES.split()), "n": str(draw.randrange(2, 900)), "t": draw.choice(THINGS.split())}


def _act(draw: random.Random) -> Slots:
    one, other = draw.choice(OPPOSITES.split()).split("/")
    return {"t": draw.choice(THINGS.split()), "a": draw.choice(CITIES.split()), "v": one, "w": other}


KINDS = {
    "direction": Kind(
        (
            "which trains go from {a} to {b} on weekdays",
            "show me the trains from {a} to {b} that run on weekdays",
            "i need the weekdays trains going from {a} to {b}",
        ),
        lambda draw: _two(CITIES, draw),
        lambda draw, slots: {"a": slots["b"], "b": slots["a"]},
    ),
    "number": Kind(
        (
            "what does error {n} of the {t} sold in {a} mean",
            "tell me the meaning of error {n} of the {t} sold in {a}",
            "the {t} sold in {a} shows error {n}, what does that mean",
        ),
        _numbered,
        lambda draw, slots: {"n": str(int(slots["n"]) + draw.randrange(1, 90))},
    ),
    "name": Kind(
        (
            "which office in {b} does {a} work at on fridays",
            "tell me the office in {b} that {a} works at on fridays",
            "on fridays, which office in {b} is {a} working at",
        ),
        lambda draw: {"a": draw.choice(PEOPLE.split()), "b": draw.choice(CITIES.split())},
        lambda draw, slots: {"a": _other(draw, PEOPLE, slots["a"])},
    ),
    "antonym": Kind(
        (
            "how do people in {a} {v} the cover of a {t}",
            "please explain how people in {a} {v} the cover of a {t}",
            "in {a}, how do people {v} the cover of a {t}",
        ),
        _act,
        lambda draw, slots: {"v": slots["w"], "w": slots["v"]},
    ),
}


def label(kind: str, slots: Slots) -> str:
    """Of the answer."""
    return kind + "|" + "|".join([f"{name}={slots[name]}" for name in sorted(slots) if name != "w"])


def traffic(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Text and class: few things are asked often, in changing words, and so are their near misses."""
    draw = random.Random(seed)
    known = [(kind, slots) for kind in KINDS for _ in range(count // 40) for slots in KINDS[kind].pair(draw)]
    for _ in range(count):
        kind, slots = draw.choice(known)
        yield (
            draw.choice(KINDS[kind].ways).format(**slots) + draw.choice(("", "?", " please?", ", thanks")),
            label(kind, slots),
        )
