"""A step as the trail keeps it: fingerprints folded to 16 bits, and a sketch of words that survives rewording. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from gateway.call import Step
from gateway.policy.loop_trail import Mark, Trail

_M32 = 0xFFFF_FFFF
_STEPS = (0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D, 0x27D4_EB2F)  # odd: each permutes 32 bits
WORDS = 96  # of an answer that count
LONG_WORD = 4  # letters: shorter ones say little
SKETCH = 4  # minima; two texts share about as many of four as their words overlap
ALIKE = 2  # so many of them shared: the same said again


def fold(value: int) -> int:
    """16 bits of 32, never 0."""
    return ((value * 0x9E37_79B1 & _M32) >> 16) or 1


def sketch(text: str) -> tuple[int, ...]:
    """Minima of four permutations of the words' hashes (Broder 1997): the share that two sketches have in common
    estimates how far the sets of words overlap, whatever their order."""
    words = {word for word in text.lower().split()[: 2 * WORDS] if len(word) >= LONG_WORD}
    hashes = [crc32(word.strip(".,;:!?\"'()*`").encode("utf-8", "replace")) for word in sorted(words)[:WORDS]]
    if not hashes:
        return ()
    return tuple([fold(min([value * factor & _M32 for value in hashes])) for factor in _STEPS])


def mark(step: Step, trail: Trail, names: Mapping[str, str] | None = None) -> Mark:
    """`names`: of tool calls by id, where the body does not hold them (ToolCall.id -> name)."""
    if not step.tools:
        return _spoken(step, trail)
    done: list[int] = []
    brought: list[int] = []
    news: list[int] = []
    failures: list[tuple[int, int]] = []
    worked: list[int] = []
    known = True
    if len(step.tools) == 1 and step.tools[0].call and not step.tools[0].failure:
        tool = step.tools[0]
        news_of_one = (fold(tool.shape ^ tool.result * 3),)
        return Mark(
            fold(tool.call) | 1,
            fold(tool.result),
            news_of_one,
            (),
            (fold(crc32(tool.name.encode("utf-8", "replace"))),),
        )
    for tool in step.tools:
        name = tool.name or (names or {}).get(tool.id, "")
        known = known and tool.call != 0
        done.append(tool.call)
        called = fold(crc32(name.encode("utf-8", "replace")))
        if tool.failure:
            # Unknown names were not hashed into the failure: two tools that fail alike stay two.
            failures.append((called, fold(tool.failure ^ (0 if tool.name else called))))
            brought.append(tool.failure)
        else:
            # Without its arguments a result cannot be known to be the same again: it counts as news.
            worked.append(called)
            news.append(fold(tool.shape ^ tool.result * 3) if tool.call else fold(step.key ^ tool.result))
            brought.append(tool.result)
    return Mark(
        _set(done) | 1 if known else 0,
        _set(brought),
        tuple(news),
        tuple(sorted(set(failures))),
        tuple(set(worked)),
    )


def _set(values: list[int]) -> int:
    """16 bits over a set: parallel calls come in any order."""
    if len(values) == 1:
        return fold(values[0])
    total = 0
    for value in sorted(set(values)):
        total = crc32(value.to_bytes(4, "little"), total)
    return fold(total)


def _spoken(step: Step, trail: Trail) -> Mark:
    """Words only. Their news is what the user said; where that was said before, an answer unlike those before."""
    told = fold(step.told ^ 0x5A5A)
    done, brought = fold(step.told) & 0xFFFE, fold(step.said)
    if not trail.knows(told):
        return Mark(done, brought, (told,))
    words = sketch(step.text)
    if len(words) < SKETCH:
        return Mark(done, brought, (told, brought))
    shared = sum([trail.knows(word) for word in words])
    known = trail.knows(brought) or shared >= ALIKE
    # What is alike is kept as it was first said: a text that drifts away word by word is news in the end.
    return Mark(done, brought, (told,)) if known else Mark(done, brought, (told, *words))
