"""Texts to the numbers of word pieces that BERT models read (WordPiece, uncased), without any library.

The longest piece of the vocabulary that a word begins with, then the longest of the rest, and so on; a word that
cannot be put together is unknown. Texts that name special tokens ("[SEP]") are texts like all others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

UNKNOWN, BEGIN, END = 100, 101, 102
MOST_LETTERS = 16_384  # of a text; the rest is not read
_LONGEST_WORD = 100
_KEPT = 50_000  # words whose pieces are kept
_ASCII = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127])
_IDEOGRAPHS = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPiece:
    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = vocabulary
        self._known: dict[str, list[int]] = {}

    @classmethod
    def read(cls, path: Path) -> WordPiece:
        """From a file with one piece a line."""
        lines = path.read_text(encoding="utf-8").split("\n")
        return cls({piece: number for number, piece in enumerate(lines) if piece})

    def numbers(self, text: str, most: int) -> list[int]:
        """At most `most`, with those that begin and end a text."""
        found = [BEGIN]
        for word in words(text[:MOST_LETTERS]):
            found += self._pieces(word)
            if len(found) >= most:
                break
        return [*found[: most - 1], END]

    def _pieces(self, word: str) -> list[int]:
        known = self._known.get(word)
        if known is None:
            known = self._split(word)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[word] = known
        return known

    def _split(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [UNKNOWN]
        found, start, mark = [], 0, ""
        while start < len(word):
            end = len(word)
            while end > start and mark + word[start:end] not in self._vocabulary:
                end -= 1
            if end == start:
                return [UNKNOWN]
            found.append(self._vocabulary[mark + word[start:end]])
            start, mark = end, "##"
        return found


def words(text: str) -> list[str]:
    """In lower case, without accents; each punctuation mark and ideograph is one."""
    if text.isascii():
        return _ASCII.findall(text.lower().translate(_ASCII_CONTROL))
    spaced = "".join([f" {one} " if _ideograph(one) else one for one in text if not _dropped(one)])
    plain = [one for one in unicodedata.normalize("NFD", spaced) if unicodedata.category(one) != "Mn"]
    return "".join([f" {one} " if _mark(one) else one for one in "".join(plain).lower()]).split()


def _dropped(letter: str) -> bool:
    return letter == "\ufffd" or (letter not in "\t\n\r" and unicodedata.category(letter)[0] == "C")


def _ideograph(letter: str) -> bool:
    return ord(letter) >= 0x3400 and any([first <= ord(letter) <= last for first, last in _IDEOGRAPHS])


def _mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "P" or (letter.isascii() and letter.isprintable() and _symbol(letter))


def _symbol(letter: str) -> bool:
    return not letter.isalnum() and letter != " "
