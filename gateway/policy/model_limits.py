"""What models can take and make at most, by family: data, for requests that state no limit of their own.

Sources, read in November 2026: platform.openai.com/docs/models, docs.claude.com/en/docs/about-claude/models,
ai.google.dev/gemini-api/docs/models, api-docs.deepseek.com, docs.aws.amazon.com/nova, docs.cohere.com/docs/models. A
figure here may be above what a model does, never below: where variants differ, the largest stands, and `asked` is what
each of them makes. The first pattern found in an id counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class Most(NamedTuple):
    models: str
    output: int  # tokens of one answer, reasoning included
    context: int  # tokens of a request and its answer together
    least: int = 0  # tokens of one answer that every variant makes, where `output` may be above it

    @property
    def asked(self) -> int:
        """What may be asked for: a limit above its own is refused by the provider."""
        return self.least or self.output


TABLE = (
    Most(r"claude-(?:instant|2|3-(?:opus|sonnet|haiku))", 4_096, 200_000),
    Most(r"claude-3-5", 8_192, 200_000),
    Most(r"claude-(?:haiku-4-5|opus-4-5)", 64_000, 200_000),
    Most(r"claude-(?:opus-4(?:-[01]\b|-20|$)|4-opus)", 32_000, 200_000),
    Most(r"claude-(?:3-7|sonnet-4(?:[-.][056]\b|[-@]20|$)|4-sonnet)", 128_000, 1_000_000, 64_000),
    Most(r"claude-opus-4@20", 128_000, 1_000_000, 32_000),
    Most(r"claude", 128_000, 1_000_000),
    Most(r"gpt-4\.1", 32_768, 1_047_576),
    Most(r"gpt-4o|chatgpt-4o", 16_384, 128_000),
    Most(r"gpt-4-(?:turbo|1106|0125|vision)", 4_096, 128_000),
    Most(r"gpt-4(?:-32k|-\d{4})?$", 32_768, 32_768),
    Most(r"gpt-3\.5|davinci|babbage", 16_384, 16_385),
    Most(r"gpt-oss", 131_072, 131_072),
    Most(r"gpt-5\.[4-9]|gpt-[6-9]", 128_000, 1_050_000),
    Most(r"gpt-5|codex", 128_000, 400_000),
    Most(r"(?:^|/)o\d", 100_000, 200_000),
    Most(r"nova-(?:micro|lite|pro|premier)", 10_000, 1_000_000),
    Most(r"nova-2", 65_536, 1_000_000),
    Most(r"gemini-(?:1\.|2\.0)", 8_192, 2_097_152),
    Most(r"gemini", 65_536, 1_048_576),
    Most(r"command-a-(?:plus|reasoning)", 65_536, 320_000, 32_000),
    Most(r"command|c4ai|aya", 8_192, 320_000, 4_000),
)
_COMPILED = tuple((re.compile(row.models), row) for row in TABLE)


@lru_cache(maxsize=1024)
def most(model: str) -> Most | None:
    """What is known of a model; None where that is nothing."""
    name = model.lower()
    return next((row for pattern, row in _COMPILED if pattern.search(name)), None)
