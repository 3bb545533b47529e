"""Model ids as they are written in requests and answers, brought to the form that price lists use.

One model goes by many names: dated (`gpt-4o-2024-08-06`), with its provider (`openai/gpt-4o`), as a Bedrock profile
(`us.anthropic.claude-sonnet-4-5-20250929-v1:0`), as a Vertex resource
(`publishers/anthropic/models/claude-opus-4@20250514`), as a fine-tuned copy (`ft:gpt-4o-mini:acme::id`), or in Azure's
spelling (`gpt-35-turbo`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST = 256
"""No model id is longer; what is longer is not looked up, nor remembered."""

_VENDORS = (
    "ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|nvidia|openai|qwen|stability|writer|zai"
)
# Each rule rewrites what the ones before it left; every change yields a more general id.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^arn:[^/]*/", ""),  # an AWS inference profile
        (r"^(?:.*/)?publishers/[^/]+/models/|^(?:tuned)?models/|^(?:.*/)?deployments/", ""),
        (r"@(?:default|latest)$", ""),
        (r"@(20\d{6})$", r"-\1"),  # Vertex writes the version after an @
        (r"^gpt-35-", "gpt-3.5-"),  # Azure
        (r"^ft:([^:]+)(?::.*)?$", r"\1"),
        (rf"^(?:us-gov|us|eu|apac|global|jp|au|ca|sa|me|af|il|mx|uk|in)\.(?=(?:{_VENDORS})\.)", ""),  # Bedrock regions
        (r"-v\d+(?::\d+)+(?::\d+k)?$|-v\d+$|:\d+k$", ""),
        (rf"^(?:{_VENDORS})\.(?=[a-z])", ""),
        (r"-(20\d\d)-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])$", ""),
        (r"-preview-\d\d-(?:\d\d|20\d\d)$", "-preview"),
        (r"-latest$|-\d{3}$", ""),
    )
)
_BEDROCK = re.compile(rf"^(?:[a-z-]+\.)?(?:{_VENDORS})\.[a-z]")
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def forms(model: str) -> Iterator[str]:
    """The id in lower case as it is, then ever more general forms of it; none twice."""
    yield (current := model.lower())
    for pattern, replacement in _RULES:
        changed = pattern.sub(replacement, current)
        if changed and changed != current:
            yield (current := changed)


def is_bedrock(model: str) -> bool:
    """Is this an id of Amazon Bedrock: `vendor.model`, with or without a region before it?"""
    return _BEDROCK.match(model) is not None


def dashed_date(model: str) -> str:
    """`gpt-5.2-20251211` as `gpt-5.2-2025-12-11`, for lists that write dates with dashes."""
    return _COMPACT_DATE.sub(r"-\1-\2-\3", model)
