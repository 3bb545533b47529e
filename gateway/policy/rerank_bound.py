"""How many searches a request to rank documents may be billed as.

One search ranks up to a hundred documents; one that is longer than 500 tokens, together with the query, counts as
several (docs.cohere.com/docs/how-does-cohere-pricing-work, read in November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from gateway.policy.token_bound import text_bound

DOCUMENTS, CHUNK = 100, 500  # of a search; tokens of a document that counts as one
_documents: msgspec.json.Decoder[list[Raw]] = msgspec.json.Decoder(list[Raw])


def searches(fields: Mapping[str, Raw], tokens: int) -> int:
    """`tokens`: the most that the request may have."""
    try:
        count = len(_documents.decode(fields.get("documents", Raw(b"[]"))))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        count = tokens
    room = max(CHUNK - text_bound(bytes(fields.get("query", b""))), 1)
    return max(-(-(count + tokens // room) // DOCUMENTS), 1)
