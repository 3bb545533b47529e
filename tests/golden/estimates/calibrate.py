"""Fits the constants of `gateway/policy/token_families.py` to the recordings beside this file, and reports the errors.

    python tests/golden/estimates/calibrate.py          # errors with the constants as they are
    python tests/golden/estimates/calibrate.py --fit    # and constants that fit better, family by family

Coordinate descent on the mean of min(|estimate - actual| / actual, 1), with a slight pull towards the constants of
`Family()`, so that few recordings do not bend a constant that they say little about.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.call import Answer, Asked, ToolUse
from gateway.policy import estimate
from gateway.policy.token_families import Family, family

HERE = Path(__file__).parent
INPUT, OUTPUT = ("text", "request", "message", "tools", "schema"), ("call", "density")


class Sample(NamedTuple):
    dialect: str
    model: str
    asked: Asked
    body: bytes
    input_tokens: int
    answer: Answer | None
    output_tokens: int
    source: dict[str, Any]


def samples() -> Iterator[Sample]:
    for path in sorted(HERE.glob("*.jsonl")):
        for line in path.read_text().strip().split("\n"):
            yield sample(json.loads(line))


def sample(record: dict[str, Any]) -> Sample:
    body = record["request"].encode()
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    messages = next((fields[key] for key in estimate.CONTENT if key in fields), None)
    asked = Asked(
        model=record["model"],
        fields=fields,
        messages=items(messages) if messages is not None else (),
        system=next((bytes(fields[key]) for key in estimate.SYSTEM if key in fields), b""),
        tools=bytes(fields.get("tools", b"")),
    )
    said = record.get("answer")
    answer = said and Answer(
        model=record["model"],
        output_chars=said["chars"],
        sample=said["sample"],
        tool_uses=(ToolUse("", ""),) * said["tool_calls"],
    )
    tokens = said["tokens"] if said else 0
    return Sample(
        record["dialect"], record["model"], asked, body, record["input_tokens"], answer, tokens, record["source"]
    )


def items(raw: msgspec.Raw) -> tuple[msgspec.Raw, ...]:
    return tuple(msgspec.json.decode(raw, type=list[msgspec.Raw])) if bytes(raw).startswith(b"[") else (raw,)


def input_errors(chosen: Iterable[Sample]) -> list[float]:
    return [abs(estimated_input(s) - s.input_tokens) / s.input_tokens for s in chosen]


def estimated_input(s: Sample) -> int:
    bare = s.dialect in ("openai_embeddings", "openai_completions")
    return estimate.input_tokens(s.asked, s.model, s.body, bare=bare)


def output_errors(chosen: Iterable[Sample], *, sampled: bool = True) -> list[float]:
    """`sampled`: with the beginning of the answer known; without it only its length is."""
    errors = []
    for s in chosen:
        if s.answer is not None and s.output_tokens >= 20:
            answer = s.answer if sampled else msgspec.structs.replace(s.answer, sample="")
            errors.append(abs(estimate.output_tokens(answer, s.model) - s.output_tokens) / s.output_tokens)
    return errors


def figures(errors: list[float]) -> str:
    ordered = sorted(errors)
    if not ordered:
        return "-"
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"n {len(ordered):3}  median {statistics.median(ordered):6.1%}  p95 {p95:6.1%}"


def weighted(chosen: list[Sample]) -> float:
    """Sum of the errors over the sum of the tokens: what matters for money."""
    return sum(abs(estimated_input(s) - s.input_tokens) for s in chosen) / sum(s.input_tokens for s in chosen)


def report(groups: dict[str, list[Sample]]) -> None:
    for name, group in sorted(groups.items()):
        print(f"{name[:22]:22}  input  {figures(input_errors(group))}")
        print(f"{'':22}  >= 100 {figures(input_errors(s for s in group if s.input_tokens >= 100))}")
        print(f"{'':22}  output {figures(output_errors(group))}")
        print(f"{'':22}  length {figures(output_errors(group, sampled=False))}")


def loss(group: list[Sample], constants: Family, names: tuple[str, ...]) -> float:
    with patched(constants):
        outputs = output_errors(group) + output_errors(group, sampled=False)
        errors = input_errors(group) if names is INPUT else outputs
    pull = sum(abs(getattr(constants, n) / getattr(Family(""), n) - 1) for n in names if getattr(Family(""), n))
    return sum(min(e, 1.0) for e in errors) + 0.05 * pull


class patched:
    """The family of every model, for a while."""

    def __init__(self, constants: Family) -> None:
        self.constants = constants

    def __enter__(self) -> None:
        estimate.family = lambda _: self.constants

    def __exit__(self, *_: object) -> None:
        estimate.family = family


def fit(group: list[Sample], constants: Family, names: tuple[str, ...]) -> Family:
    best = loss(group, constants, names)
    step = 0.5
    while step > 0.02:
        improved = False
        for name in names:
            here = getattr(constants, name)
            for there in (here * (1 + step), here * (1 - step), here + 10 * step):
                trial = constants._replace(**{name: there})
                if (found := loss(group, trial, names)) < best - 1e-6:
                    constants, best, improved = trial, found, True
        if not improved:
            step /= 2
    return constants


def main() -> None:
    every = list(samples())
    by_dialect: dict[str, list[Sample]] = defaultdict(list)
    by_family: dict[str, list[Sample]] = defaultdict(list)
    for s in every:
        by_dialect[s.dialect].append(s)
        by_family[family(s.model).models or "other"].append(s)
    report(by_dialect)
    print()
    report(by_family)
    print(f"\nall input tokens: off by {weighted(every):.1%} of their sum")
    if "--fit" in sys.argv:
        for group in by_family.values():
            constants = fit(group, family(group[0].model), INPUT)
            constants = fit(group, constants, OUTPUT)
            print({name: round(v, 3) if isinstance(v, float) else v for name, v in constants._asdict().items()})


if __name__ == "__main__":
    main()
