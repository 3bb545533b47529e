from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.model_ids import dashed_date, forms, is_bedrock


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-5.2-20251211", "gpt-5.2"),
        ("gpt-35-turbo-16k", "gpt-3.5-turbo-16k"),
        ("ft:gpt-4o-mini-2024-07-18:acme::AbCd", "gpt-4o-mini"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("models/gemini-2.5-flash-preview-05-20", "gemini-2.5-flash-preview"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash-preview"),
        ("gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0:200k", "claude-3-5-sonnet"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
            "claude-sonnet-4",
        ),
        ("projects/p/locations/l/publishers/anthropic/models/claude-opus-4@20250514", "claude-opus-4"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("openai/deployments/gpt-4o", "gpt-4o"),
        ("gpt-4o", "gpt-4o"),
    ],
)
def test_the_general_form_of_an_id(written: str, meant: str):
    found = list(forms(written))
    assert found[0] == written.lower()
    assert found[-1] == meant


def test_what_is_part_of_the_name_stays():
    assert list(forms("gpt-4-0613")) == ["gpt-4-0613"]
    assert list(forms("qwen2.5-vl-72b-instruct:free")) == ["qwen2.5-vl-72b-instruct:free"]
    assert list(forms("mistral-large-2411")) == ["mistral-large-2411"]


@pytest.mark.parametrize("model", ["anthropic.claude-x", "eu.meta.llama3", "us-gov.amazon.nova"])
def test_bedrock_ids(model: str):
    assert is_bedrock(model)


@pytest.mark.parametrize("model", ["gpt-3.5-turbo", "claude-3.5-sonnet", "meta-llama/llama-3.1"])
def test_ids_that_are_not_of_bedrock(model: str):
    assert not is_bedrock(model)


def test_dates_with_dashes():
    assert dashed_date("gpt-5.2-20251211") == "gpt-5.2-2025-12-11"
    assert dashed_date("gpt-5.2-20251299") == "gpt-5.2-20251299"


@given(st.text(max_size=80))
def test_any_text_has_forms_and_none_twice(text: str):
    found = list(forms(text))
    assert found[0] == text.lower()
    assert len(set(found)) == len(found)
