"""How each API family carries a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Lines = tuple[tuple[bytes, bytes], ...]

AUTH: Mapping[str, Callable[[str], Lines]] = {
    "openai": lambda key: ((b"authorization", b"Bearer " + key.encode()),),
    "anthropic": lambda key: ((b"x-api-key", key.encode()),),
    "gemini": lambda key: ((b"x-goog-api-key", key.encode()),),
    "bedrock": lambda key: ((b"authorization", b"Bearer " + key.encode()),),
    "cohere": lambda key: ((b"authorization", b"Bearer " + key.encode()),),
    "ollama": lambda key: ((b"authorization", b"Bearer " + key.encode()),),
    "opaque": lambda key: ((b"authorization", b"Bearer " + key.encode()),),
}
AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


def auth_lines(family: str, host: str, key: str | None) -> Lines:
    """The header lines that carry an upstream's own key; none where the client's key passes through."""
    if not key:
        return ()
    if family == "openai" and host.endswith(AZURE_HOSTS):
        return ((b"api-key", key.encode()),)
    return AUTH[family](key)
