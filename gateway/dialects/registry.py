"""Every dialect by the name that routes use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.dialects.anthropic import Anthropic
from gateway.dialects.bedrock import BedrockConverse
from gateway.dialects.bedrock_invoke import BedrockInvoke
from gateway.dialects.cohere import Cohere
from gateway.dialects.gemini import Gemini
from gateway.dialects.ollama import Ollama
from gateway.dialects.opaque import Opaque
from gateway.dialects.openai_chat import OpenAIChat
from gateway.dialects.openai_embeddings import OpenAIEmbeddings
from gateway.dialects.openai_responses import OpenAIResponses
from gateway.ports import Dialect

_ALL: tuple[Dialect, ...] = (
    OpenAIChat(),
    OpenAIChat("openai_completions"),
    OpenAIResponses(),
    OpenAIEmbeddings(),
    Anthropic(),
    Gemini(),
    BedrockConverse(),
    BedrockInvoke(),
    Cohere(),
    Ollama(),
    Opaque(),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in _ALL})
