"""A stable, low-cardinality name for an agent that does not state one. Pure.

A coding agent is known by its User-Agent. Behind a library, the name is the library and six hex digits over the head of
the system prompt (or of the tools where there is no prompt): the same agent gets the same name on every call, two
agents of one program get two. Digits are left out, since prompts like to begin with a date.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

FINGERPRINT_BYTES = 240
HEAD_BYTES = 4 * FINGERPRINT_BYTES
_PRODUCT = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)/([A-Za-z0-9_.+-]+)(?: ([0-9][A-Za-z0-9_.+-]*))?")
_TEXT = re.compile(rb'"(?:text|content)"\s*:\s*"')
_UNSTABLE = re.compile(rb"[0-9]+|\\[nrt]|\s+")

CODING_AGENTS = {
    "claude-cli": "claude-code",
    "opencode": "opencode",
    "geminicli": "gemini-cli",
    "roocode": "roo-code",
    "cline": "cline",
    "kilocode": "kilo-code",
    "kilo-code": "kilo-code",
    "qwencode": "qwen-code",
    "aider": "aider",
    "goose": "goose",
    "crush": "crush",
    "zed": "zed",
    "continue": "continue",
}
LIBRARIES = {
    "agents-python": "openai-agents",
    "agents-javascript": "openai-agents-js",
    "ai": "vercel-ai",
    "ai-sdk": "vercel-ai",
    "google-genai-sdk": "google-genai",
    "openai-js": "openai-node",
    "anthropic-js": "anthropic-node",
}
_CODEX = "codex"


class Product(Struct, frozen=True, gc=False):
    name: str
    version: str = ""
    coding_agent: bool = False


UNKNOWN = Product("agent")


@lru_cache(1024)
def product_of(user_agent: str) -> Product:
    """The program behind a User-Agent: a coding agent anywhere in it, else the first product."""
    found = [(match[1].lower(), match[2], match[3] or "") for match in _PRODUCT.finditer(user_agent)]
    for name, version, _ in found:
        if name.startswith(_CODEX):
            return Product(_CODEX, version, coding_agent=True)
        if name in CODING_AGENTS:
            return Product(CODING_AGENTS[name], version, coding_agent=True)
    if not found:
        return UNKNOWN
    name, version, after = found[0]
    if after and not version[0].isdigit():  # "AsyncOpenAI/Python 3.54.0"
        name, version = f"{name.removeprefix('async')}-{version.lower()}", after
    return Product(LIBRARIES.get(name, name)[:48], version[:32])


def is_codex(user_agent: str, originator: str) -> bool:
    return originator.lower().startswith(_CODEX) or (bool(user_agent) and product_of(user_agent).name == _CODEX)


def states_cache_key(user_agent: str) -> bool:
    """Is `prompt_cache_key` the id of a conversation? Elsewhere it may be one constant for a whole application."""
    return bool(user_agent) and product_of(user_agent).name in (_CODEX, "opencode")


def fingerprint(prompt: bytes) -> str:
    """Six hex digits over the head of a system prompt given as raw JSON: a string, text blocks, or a whole message."""
    head = prompt[:HEAD_BYTES]
    if not head.startswith(b'"'):
        found = _TEXT.search(head)
        head = head[found.end() :] if found is not None else head
    head = _UNSTABLE.sub(b" ", head.lstrip(b'"')[:FINGERPRINT_BYTES])
    return blake2b(head.rstrip(b'"}] '), digest_size=3).hexdigest()


def guess(user_agent: str, prompt: bytes) -> tuple[str, str]:
    """(agent name, agent version) from the User-Agent and the raw system prompt; see the module."""
    return _guess(user_agent, prompt[:HEAD_BYTES])


@lru_cache(512)
def _guess(user_agent: str, prompt: bytes) -> tuple[str, str]:
    product = product_of(user_agent) if user_agent else UNKNOWN
    if product.coding_agent or not prompt:
        return product.name, product.version
    return f"{product.name}-{fingerprint(prompt)}", product.version
