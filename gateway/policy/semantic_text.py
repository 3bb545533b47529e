"""What guards and verifier see of a question: its words, numbers, codes, names, and what each word is to it. Pure.

Read once per text and kept with its entry, so that a lookup reads one text and compares it with a few.
"""

from __future__ import annotations

import re
from collections import Counter

from gateway.policy.semantic_words import (
    EXCLUSIVE,
    NEGATIONS,
    NUMBER_WORDS,
    PLAIN,
    QUESTIONS,
    ROLES,
    split,
    stem,
)

MOST_WORDS = 600  # longer texts are not compared
_TOKEN = re.compile(r"\d+(?:[.,:/]\d+)+|\d+(?:st|nd|rd|th)\b|\d+|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\w\s]", re.UNICODE)
_COUNTED = re.compile(r"\d+(?:[.,:]\d+)*-?(?:[a-z]{1,2}|(?<=-)[a-z]+)")
_CHUNK_TRIM = ".,?!;:'\"()[]{}’“”"
_CODE_MARKS = frozenset("+-#*%=<>_@\\&~^|")
_OPERATORS = frozenset("+*/=<>%^|~\\")  # that ask for something by themselves: 3 + 4, 3 * 4
_SIGN = re.compile(r"[^\w\s\x00-\x7f¡¿«»§©®°·€£¥‐-‟†•…′″™\u0300-\u036f]")  # pictures, signs of other sciences
_SENTENCE_END = frozenset(".?!:;")
_ARTICLES = frozenset(map(stem, split("the a an my your our their his her its this that these those any some")))
_SPLIT = re.compile(r"\s+(?=(?:['’](?:t|s|re|ve|ll|d|m)|n['’]t)\b)", re.IGNORECASE)  # texts split into tokens before
_SIGNS = {"$": " dollar ", "€": " euro ", "£": " pound ", "¥": " yen "}
_TITLES = frozenset(("prof", "dr", "mr", "mrs", "ms", "st"))


class Said:
    """One text. `words` are in lower case, `stems` those that carry content, in order."""

    __slots__ = (
        "beside", "codes", "content", "counts", "frame", "grams", "kinds", "left", "names", "negations", "numbers",
        "pairs", "places", "questions", "right", "roles", "stems", "tokens", "words",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        text = _SPLIT.sub("", text)
        for sign, name in _SIGNS.items():
            text = text.replace(sign, name)
        raw = _TOKEN.findall(text)[: 2 * MOST_WORDS]
        lower = [token.lower().replace("’", "'") for token in raw]
        self.tokens = tuple([stem(token) for token in lower if token[0].isalnum()])
        self.words = tuple([token for token in lower if token[0].isalnum()])
        self.numbers = tuple(
            [NUMBER_WORDS.get(token, token.replace(",", "")) for token in self.words if _numeric(token)]
        )
        self.codes = _codes(text)
        self.negations = sum([word in NEGATIONS or word.endswith("n't") for word in self.words])
        self.questions = frozenset([QUESTIONS[word] for word in self.words if word in QUESTIONS])
        self.stems = tuple([stem(word) for word in self.words if word not in PLAIN])
        self.content = frozenset(self.stems)
        self.counts = Counter(self.stems)
        self.names = frozenset() if _shouted(raw) else _names(raw)
        self.pairs = frozenset(zip(self.tokens, self.tokens[1:], strict=False))
        joined = f" {' '.join(self.words)} "
        self.grams = frozenset([joined[at : at + 4] for at in range(len(joined) - 3)])
        self.places = {word: place for place, word in reversed(list(enumerate(self.stems)))}
        self.roles = _roles(self.words)
        self.frame = tuple([token for token in self.tokens if token not in _ARTICLES])
        self.left, self.right = _neighbours(self.frame)
        self.beside = _beside(self.words)
        self.kinds = _kinds(self.words)

    def governed(self, role: str) -> frozenset[str]:
        """The content words that stand in a role."""
        return frozenset([word for word, known in self.roles.items() if known == role])


def _numeric(token: str) -> bool:
    return token[0].isdigit() or token in NUMBER_WORDS


def _codes(text: str) -> frozenset[str]:
    """What is no plain word: identifiers, addresses, paths, prices, formulas, signs. Numbers alone are `numbers`."""
    found = [] if text.isascii() else _SIGN.findall(text)
    for chunk in text.split():
        bare = chunk.lower().rstrip(_CHUNK_TRIM) if chunk[-1] not in "+-#" else chunk.lower()
        bare = bare.lstrip(_CHUNK_TRIM).replace("’", "'").removesuffix("'s")
        if not bare or not any([letter.isalnum() for letter in bare]):
            found += _OPERATORS.intersection(bare)
            continue
        if _is_code(bare, chunk):
            found.append(bare)
    return frozenset(found)


def _is_code(bare: str, written: str) -> bool:
    letters = any([letter.isalpha() for letter in bare])
    if letters and any([letter.isdigit() for letter in bare]):
        return not _COUNTED.fullmatch(bare)  # 2nd, 9-credit, 5pm: a number and a word
    if not _CODE_MARKS.isdisjoint(bare):
        return letters and not bare.replace("-", "").isalpha()
    if "://" in bare:
        return True
    head, dot, tail = written.strip(_CHUNK_TRIM).partition(".")  # a dot within a word; not U.S., nor a missing space
    return bool(dot) and len(head) > 1 and tail[:1].islower()


def _shouted(raw: list[str]) -> bool:
    """Is nearly every word capitalised? Then capitals say nothing."""
    words = [token for token in raw if token[0].isalpha()]
    capital = sum([token[0].isupper() for token in words])
    return len(words) > 2 and capital > 0.7 * len(words)


def _names(raw: list[str]) -> frozenset[str]:
    """Words with a capital where grammar asks for none."""
    found = []
    before = "."
    for token in raw:
        if token[0].isupper() and len(token) > 1 and before not in _SENTENCE_END:
            low = token.lower()
            if low not in PLAIN:
                found.append(stem(low))
        if token[0].isalnum() or (token in _SENTENCE_END and before.lower() not in _TITLES):
            before = token
    return frozenset(found)


def _roles(words: tuple[str, ...]) -> dict[str, str]:
    """What each content word is to the question: the preposition in front of it, at its first place."""
    roles: dict[str, str] = {}
    role = ""
    for word in words:
        known = ROLES.get(word)
        if word not in PLAIN:
            roles.setdefault(stem(word), role if known is None else "")
            role = ""
        if known is not None:
            role = known
    return roles


def _neighbours(frame: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """What stands before and behind each word at its first place, articles left out."""
    kept = ["^", *frame, "$"]
    left: dict[str, str] = {}
    right: dict[str, str] = {}
    for place in range(1, len(kept) - 1):
        left.setdefault(kept[place], kept[place - 1])
        right.setdefault(kept[place], kept[place + 1])
    return left, right


def _beside(words: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """What stands before and behind each number."""
    padded = ["^", *words, "$"]
    return {
        NUMBER_WORDS.get(word, word.replace(",", "")): (padded[place], padded[place + 2])
        for place, word in enumerate(words)
        if _numeric(word)
    }


def _kinds(words: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Kind -> which of it are named."""
    found: dict[str, set[str]] = {}
    for word in words:
        kind = EXCLUSIVE.get(word) or EXCLUSIVE.get(word.removesuffix("s"))
        if kind is not None:
            found.setdefault(kind, set()).add(stem(word))
    return {kind: frozenset(members) for kind, members in found.items()}
