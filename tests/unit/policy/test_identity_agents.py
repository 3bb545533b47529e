"""Names for agents that state none: stable, few, and different where the agents are."""

from __future__ import annotations

import json

import pytest

from gateway.policy.identity_agents import fingerprint, guess, product_of

PROMPT = json.dumps("You are a travel agent. You book trains, hotels and flights for our customers.").encode()
OTHER = json.dumps("You are a coding agent. You fix bugs.").encode()

PRODUCTS = [
    ("claude-cli/2.1.197 (external, sdk-cli)", "claude-code", "2.1.197", True),
    ("codex_cli_rs/0.169.0 (Debian 12; x86_64) xterm", "codex", "0.169.0", True),
    ("codex_exec/0.169.0", "codex", "0.169.0", True),
    ("opencode/1.18.33 ai-sdk/provider-utils/3.0", "opencode", "1.18.33", True),
    ("ai-sdk/openai/2.0 opencode/1.18.33", "opencode", "1.18.33", True),
    ("GeminiCLI/v0.9.0/gemini-2.5-pro (linux; x64)", "gemini-cli", "v0.9.0", True),
    ("OpenAI/Python 3.54.0", "openai-python", "3.54.0", False),
    ("AsyncOpenAI/Python 3.54.0", "openai-python", "3.54.0", False),
    ("AsyncAnthropic/Python 2.12.0", "anthropic-python", "2.12.0", False),
    ("OpenAI/JS 6.1.0", "openai-node", "6.1.0", False),
    ("Agents/Python 0.24.0", "openai-agents", "0.24.0", False),
    ("pydantic-ai/2.68.0", "pydantic-ai", "2.68.0", False),
    ("ai/6.0.326 runtime/node.js/22", "vercel-ai", "6.0.326", False),
    ("google-genai-sdk/3.4.0 gl-python/3.11.7", "google-genai", "3.4.0", False),
    ("python-httpx/0.28.1", "python-httpx", "0.28.1", False),
    ("curl/8.5.0", "curl", "8.5.0", False),
    ("", "agent", "", False),
    ("!!", "agent", "", False),
]


@pytest.mark.parametrize(("user_agent", "name", "version", "coding"), PRODUCTS)
def test_products(user_agent: str, name: str, version: str, coding: bool) -> None:
    product = product_of(user_agent)
    assert (product.name, product.version, product.coding_agent) == (name, version, coding)


def test_a_coding_agent_is_one_agent_whatever_its_prompt() -> None:
    assert guess("claude-cli/2.1.197 (cli)", PROMPT) == guess("claude-cli/2.1.197 (cli)", OTHER)


def test_behind_a_library_the_prompt_tells_agents_apart() -> None:
    travel, code = guess("OpenAI/Python 3.54.0", PROMPT), guess("OpenAI/Python 3.54.0", OTHER)
    assert travel[0] != code[0]
    assert travel == guess("AsyncOpenAI/Python 3.54.0", PROMPT)
    assert travel[0].startswith("openai-python-")
    assert len(travel[0]) == len("openai-python-") + 6
    assert guess("OpenAI/Python 3.54.0", b"") == ("openai-python", "3.54.0")


def test_dates_counts_and_what_comes_late_do_not_rename() -> None:
    first = b'"Today is 2026-11-22 10:01. You are a travel agent.'
    later = b'"Today is 2027-01-03 23:59. You are a travel agent.'
    filler = b" Be kind and precise." * 12
    assert fingerprint(first + filler + b'"') == fingerprint(later + filler + b' Customer: Smith."')


def test_one_prompt_in_every_form_has_one_name() -> None:
    text = "You are a travel agent. " * 30
    forms = [
        json.dumps(text),
        json.dumps([{"type": "text", "text": text}]),
        json.dumps({"role": "system", "content": text}),
        json.dumps({"parts": [{"text": text}]}),
    ]
    assert len({fingerprint(form.encode()) for form in forms}) == 1
