"""How much text is there, in units of about one token: counted from its shape, without a vocabulary.

Byte-pair vocabularies of today agree on this to within a few percent: a common word is one token with its leading
space, a long one more; digits go in groups of three, and do not take the space before them; a run of punctuation or of
line breaks is one; scripts without spaces and scripts other than Latin cost by the letter. Characters per token vary
from 2.5 to 6 between prose, code and other languages; tokens per unit vary by a tenth.
"""

from __future__ import annotations

import re

SAMPLE = 16_384
"""Of longer texts so many characters are looked at, in pieces spread evenly."""
_PIECE = 2048

_LATIN = "A-Za-z\u00c0-\u024f"
_DENSE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"  # kana, han, hangul
_WORDS = re.compile(f"[{_LATIN}]+")
_LONG_WORDS = re.compile(f"[{_LATIN}]{{8,}}")
_DIGITS = re.compile(r"\d{1,3}")
_SPACED_DIGIT = re.compile(r" (?=\d)")
_MARKS = re.compile(r"[^\w\s]+")
_BREAKS = re.compile(r"\n\s*")
_DENSE_LETTERS = re.compile(f"[{_DENSE}]")
_OTHER_LETTERS = re.compile(rf"[^\W\d_{_LATIN}{_DENSE}]")

# Tokens of each; over the recorded answers of text alone (tests/golden/estimates) their sum is within a tenth of the
# tokens in the middle of every family of vocabularies.
WORD, LONG_LETTER, DIGITS, SPACE, MARKS, BREAK, DENSE, OTHER = 1.03, 0.14, 1.0, 0.8, 1.0, 0.7, 0.75, 0.4
PLAIN = 7
"""Letters of a word beyond these make it a long one."""


def units(text: str, sample: int = SAMPLE) -> float:
    """The size of a text; close to its tokens in any current vocabulary. Looks at `sample` characters at most."""
    length = len(text)
    if length <= sample:
        return _units(text)
    pieces = max(2, sample // _PIECE)
    piece = sample // pieces
    step = (length - piece) / (pieces - 1)
    starts = [int(step * i) for i in range(pieces)]
    return sum(_units(text[start : start + piece]) for start in starts) * length / (piece * pieces)


def _units(text: str) -> float:
    long_words = _LONG_WORDS.findall(text)
    size = (
        WORD * len(_WORDS.findall(text))
        + LONG_LETTER * (sum(map(len, long_words)) - PLAIN * len(long_words))
        + DIGITS * len(_DIGITS.findall(text))
        + SPACE * len(_SPACED_DIGIT.findall(text))
        + MARKS * len(_MARKS.findall(text))
        + BREAK * len(_BREAKS.findall(text))
    )
    if not text.isascii():
        size += DENSE * len(_DENSE_LETTERS.findall(text)) + OTHER * len(_OTHER_LETTERS.findall(text))
    return size
