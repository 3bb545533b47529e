"""What is believed of the features of a pair before a scope has taught better: the direction each points to, loosely.
Pure.

Set by hand, not fitted: weights fitted to other scopes made foreign ones worse (design note, section 0.3), and a scope
serves nothing before it has evidence of its own.
"""

from __future__ import annotations

from gateway.policy.semantic_pair import NAMES

_WEIGHTS = {
    **{"bias": -1.0, "cosine": 1.5, "close": 0.5, "words": 0.5, "pairs": 0.5, "grams": 0.5, "content": 1.5},
    **{"only_cached": -0.7, "only_asked": -0.7, "rarest": -0.7, "unmatched": -0.3, "substituted": -0.5, "framed": -0.7},
    **{"question": -1.0, "negation": -2.0, "kind": -1.5, "length": 0.3, "roles": -0.3, "repeated": -0.3, "short": -0.2},
    **{"novel": -0.6, "same_content": 0.7, "votes": 0.7, "margin": 0.7, "members": 0.2, "alone": 0.2, "first": 0.3},
    "lifted": -0.5,
}
MEAN = tuple([_WEIGHTS.get(name, 0.0) for name in NAMES])
DEVIATION = (1.0,) * len(NAMES)
