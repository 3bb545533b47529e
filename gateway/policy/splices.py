"""Edits of one body that were made for different reasons, put together."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.call import Edit


def merged(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Edits in the order of their place; insertions at one place keep the order in which they were made.

    Where two replace the same value (a budget of thinking that both the clamp and the taper lower), the smaller number
    stands; of other values, such as the model, the later. Raises ValueError where edits overlap in part.
    """
    placed: dict[tuple[int, int], Edit] = {}
    insertions: list[Edit] = []
    for edit in edits:
        if edit.start == edit.end:
            insertions.append(edit)
            continue
        place = (edit.start, edit.end)
        known = placed.get(place)
        placed[place] = edit if known is None else _smaller(known, edit)
    found = sorted((*insertions, *placed.values()), key=lambda edit: (edit.start, edit.end))
    at = 0
    for edit in found:
        if edit.start < at:
            raise ValueError("edits overlap")
        at = edit.end
    return tuple(found)


def _smaller(first: Edit, second: Edit) -> Edit:
    if first.text.isdigit() and second.text.isdigit():
        return min(first, second, key=lambda edit: int(edit.text))
    return second
