"""Requests in the words of another API: what is carried where to, and what is refused under which name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.translate.hub import Asked, Translation, translates
from gateway.errors import BadBody, Untranslatable

MODELS = {"openai_chat": "gpt-4o", "anthropic": "claude-opus-4-7", "gemini": "gemini-3-flash"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def sent(client: str, upstream: str, body: dict[str, Any], **beside: Any) -> dict[str, Any]:
    asked = Asked(**{"send_model": MODELS[upstream], "model": "m", **beside})
    return json.loads(Translation(client, upstream, json.dumps(body).encode(), asked).sent.body)


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages) or [{"role": "user", "content": "hi"}], **more}


def claude(*messages: Any, **more: Any) -> dict[str, Any]:
    said = list(messages) or [{"role": "user", "content": "hi"}]
    return {"model": "m", "max_tokens": 100, "messages": said, **more}


def gemini(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"contents": list(contents) or [{"role": "user", "parts": [{"text": "hi"}]}], **more}


def refused(client: str, upstream: str, body: dict[str, Any], **beside: Any) -> Untranslatable:
    with pytest.raises(Untranslatable) as caught:
        sent(client, upstream, body, **beside)
    assert (caught.value.code, caught.value.status) == ("untranslatable", 400)
    return caught.value


CALLS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {
        "role": "assistant",
        "content": "So.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "see", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "one"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
    {"role": "user", "content": "and?"},
]


def test_a_conversation_with_tools_for_anthropic():
    body = sent("openai_chat", "anthropic", chat(*CALLS, tools=[TOOL]))
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    first, second, third = body["messages"]
    assert first["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert second == {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "So."},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
            {"type": "tool_use", "id": "c2", "name": "see", "input": {}},
        ],
    }
    assert third == {  # one message has all results, and they come first
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
            {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
            {"type": "text", "text": "and?"},
        ],
    }
    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {}}


def test_a_conversation_with_tools_for_gemini():
    body = sent("openai_chat", "gemini", chat(*CALLS, tools=[TOOL]))
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    first, second, third = body["contents"]
    assert (first["role"], second["role"], third["role"]) == ("user", "model", "user")
    assert [part["functionCall"]["args"] for part in second["parts"][1:]] == [{"at": 1}, {}]
    assert "thoughtSignature" in second["parts"][1]  # the first call of a turn must have one
    assert "thoughtSignature" not in second["parts"][2]
    results = [part["functionResponse"] for part in third["parts"][:2]]
    assert [(found["id"], found["name"], found["response"]) for found in results] == [
        ("c1", "look", {"output": "one"}),
        ("c2", "see", {"output": "two"}),
    ]


def test_older_models_of_gemini_want_no_signature():
    body = sent("openai_chat", "gemini", chat(*CALLS), send_model="gemini-2.5-flash")
    assert "thoughtSignature" not in json.dumps(body)


def test_calls_of_gemini_without_ids_are_tied_by_name_and_order():
    def call(name: str, at: int) -> dict[str, Any]:
        return {"functionCall": {"name": name, "args": {"at": at}}}

    def result(name: str, at: int) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": {"output": str(at)}}}

    turns = [
        {"role": "user", "parts": [{"text": "go"}]},
        {"role": "model", "parts": [call("a", 1), call("b", 2), call("a", 3)]},
        {"role": "user", "parts": [result("a", 1), result("b", 2), result("a", 3)]},
    ]
    messages = sent("gemini", "openai_chat", gemini(*turns))["messages"]
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert [(said["tool_call_id"], said["content"]) for said in messages[2:]] == list(
        zip(ids, ("1", "2", "3"), strict=True)
    )
    later = sent("gemini", "openai_chat", gemini(*turns, {"role": "user", "parts": [{"text": "on"}]}))["messages"]
    assert later[: len(messages)] == messages  # what was sent before is sent again alike


def test_ids_fit_everybody():
    long = "toolu_" + "x" * 60
    turns = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": long, "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": long, "content": "r"}]},
    ]
    messages = sent("anthropic", "openai_chat", claude({"role": "user", "content": "x"}, *turns))["messages"]
    id = messages[1]["tool_calls"][0]["id"]
    assert len(id) <= 40
    assert messages[2]["tool_call_id"] == id
    odd = json.loads(json.dumps(CALLS).replace('"c1"', '"functions.look:0"'))
    blocks = sent("openai_chat", "anthropic", chat(*odd))["messages"]
    assert blocks[1]["content"][1]["id"] == blocks[2]["content"][0]["tool_use_id"] == "functions_look_0"


def test_failed_tools():
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": True, "content": "no file"}],
        },
    ]
    assert sent("anthropic", "openai_chat", claude(*turns))["messages"][-1]["content"] == "Error: no file"
    result = sent("anthropic", "gemini", claude(*turns))["contents"][-1]["parts"][0]["functionResponse"]
    assert result["response"] == {"error": "no file"}
    back = [
        {"role": "user", "parts": [{"text": "x"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"error": "no file"}}}]},
    ]
    block = sent("gemini", "anthropic", gemini(*back))["messages"][-1]["content"][0]
    assert block["is_error"] is True
    assert block["content"] == [{"type": "text", "text": "no file"}]


def test_results_that_are_objects_stay_whole():
    back = [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": [1, "é"], "b": None}}}]},
    ]
    said = sent("gemini", "openai_chat", gemini(*back))["messages"][-1]["content"]
    assert json.loads(said) == {"a": [1, "é"], "b": None}


@pytest.mark.parametrize(
    ("choice", "claude_says", "gemini_says"),
    [
        ("auto", {"type": "auto"}, {"mode": "AUTO"}),
        ("none", {"type": "none"}, {"mode": "NONE"}),
        ("required", {"type": "any"}, {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "look"}},
            {"type": "tool", "name": "look"},
            {"mode": "ANY", "allowedFunctionNames": ["look"]},
        ),
    ],
)
def test_choices_of_tools(choice, claude_says, gemini_says):
    asked = chat(tools=[TOOL], tool_choice=choice)
    assert sent("openai_chat", "anthropic", asked)["tool_choice"] == claude_says
    assert sent("openai_chat", "gemini", asked)["toolConfig"] == {"functionCallingConfig": gemini_says}
    there = sent("anthropic", "openai_chat", claude(tools=[{"name": "look"}], tool_choice=claude_says))
    assert there["tool_choice"] == choice
    config = {"functionCallingConfig": gemini_says}
    there = sent(
        "gemini", "openai_chat", gemini(tools=[{"functionDeclarations": [{"name": "look"}]}], toolConfig=config)
    )
    assert there["tool_choice"] == choice


def test_some_of_the_tools():
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    asked = chat(tools=tools, tool_choice=choice)
    config = sent("openai_chat", "gemini", asked)["toolConfig"]["functionCallingConfig"]
    assert config == {"mode": "ANY", "allowedFunctionNames": ["a", "b"]}
    assert refused("openai_chat", "anthropic", asked).param == "tool_choice"


def test_one_call_at_a_time():
    asked = chat(tools=[TOOL], parallel_tool_calls=False)
    assert sent("openai_chat", "anthropic", asked)["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert refused("openai_chat", "gemini", asked).param == "parallel_tool_calls"
    there = claude(tools=[{"name": "f"}], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    body = sent("anthropic", "openai_chat", there)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    fault = refused("anthropic", "gemini", there)
    assert fault.param == "tool_choice.disable_parallel_tool_use"


def test_strict_tools():
    strict = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}
    assert sent("openai_chat", "anthropic", chat(tools=[strict]))["tools"][0]["strict"] is True
    config = sent("openai_chat", "gemini", chat(tools=[strict]))["toolConfig"]["functionCallingConfig"]
    assert config == {"mode": "VALIDATED"}
    tools = [{"functionDeclarations": [{"name": "f"}]}]
    back = gemini(tools=tools, toolConfig={"functionCallingConfig": {"mode": "VALIDATED"}})
    assert sent("gemini", "openai_chat", back)["tools"][0]["function"]["strict"] is True


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def test_answers_by_schema():
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    asked = chat(response_format=form)
    assert sent("openai_chat", "anthropic", asked)["output_config"]["format"] == {
        "type": "json_schema",
        "schema": SCHEMA,
    }
    config = sent("openai_chat", "gemini", asked)["generationConfig"]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    there = claude(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert sent("anthropic", "openai_chat", there)["response_format"]["json_schema"]["schema"] == SCHEMA
    there = {"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}}
    assert sent("openai_responses", "openai_chat", there)["response_format"]["json_schema"]["schema"] == SCHEMA


def test_json_without_a_schema():
    asked = chat(response_format={"type": "json_object"})
    assert sent("openai_chat", "gemini", asked)["generationConfig"] == {"responseMimeType": "application/json"}
    assert refused("openai_chat", "anthropic", asked).param == "response_format"
    assert "response_format" not in sent("openai_chat", "anthropic", chat(response_format={"type": "text"}))


def test_geminis_own_schemas():
    own = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "nullable": True, "enum": ["a"]},
            "list": {"type": "ARRAY", "items": {"type": "NUMBER"}, "max_items": "3"},
            "either": {"any_of": [{"type": "BOOLEAN"}, {"type": "STRING"}], "nullable": True},
        },
        "propertyOrdering": ["type"],
        "required": ["type"],
    }
    tools = [{"functionDeclarations": [{"name": "f", "parameters": own}]}]
    assert sent("gemini", "openai_chat", gemini(tools=tools))["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "enum": ["a", None]},
            "list": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
            "either": {"anyOf": [{"type": "boolean"}, {"type": "string"}, {"type": "null"}]},
        },
        "required": ["type"],
    }
    config = {"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}}
    there = sent("gemini", "anthropic", gemini(generationConfig=config))
    assert there["output_config"]["format"]["schema"] == {"type": "string"}


def test_sampling():
    asked = chat(
        max_completion_tokens=5, temperature=0.3, top_p=0.9, stop="END", seed=3, presence_penalty=0.5, n=2, user="u"
    )
    config = sent("openai_chat", "gemini", asked)["generationConfig"]
    assert config == {
        "temperature": 0.3,
        "topP": 0.9,
        "presencePenalty": 0.5,
        "maxOutputTokens": 5,
        "seed": 3,
        "candidateCount": 2,
        "stopSequences": ["END"],
    }
    fault = refused("openai_chat", "anthropic", asked)
    assert fault.param == "presence_penalty"
    assert all(f"'{name}'" in fault.message for name in ("presence_penalty", "seed", "n"))
    body = sent("openai_chat", "anthropic", asked, droppable=("presence_penalty", "seed", "n"))
    assert body["max_tokens"] == 5
    assert (body["temperature"], body["top_p"], body["stop_sequences"]) == (0.3, 0.9, ["END"])
    assert body["metadata"] == {"user_id": "u"}


def test_what_was_dropped_is_told():
    text = json.dumps(chat(seed=3, n=2)).encode()
    found = Translation("openai_chat", "anthropic", text, Asked(droppable=("seed", "n", "other")))
    assert found.sent.dropped == ("seed", "n")


def test_defaults_say_nothing():
    asked = chat(
        n=1,
        presence_penalty=0,
        frequency_penalty=0.0,
        logprobs=False,
        service_tier="auto",
        store=False,
        tools=[],
        stop=None,
        logit_bias={},
        metadata={"a": "b"},
        prompt_cache_key="k",
        modalities=["text"],
    )
    plain = sent("openai_chat", "anthropic", chat())
    assert sent("openai_chat", "anthropic", asked) == plain


@pytest.mark.parametrize(
    ("client", "upstream", "body", "field"),
    [
        ("openai_chat", "anthropic", chat(brand_new_field=1), "brand_new_field"),
        ("openai_chat", "anthropic", chat(temperature=1.5), "temperature"),
        ("openai_chat", "anthropic", chat(logit_bias={"1": 5}), "logit_bias"),
        ("openai_chat", "gemini", chat(logprobs=True), "logprobs"),
        ("openai_chat", "gemini", chat(reasoning_effort="default"), "reasoning_effort"),
        ("openai_chat", "gemini", chat(service_tier="flex"), "service_tier"),
        ("openai_chat", "gemini", chat(store=True), "store"),
        ("openai_chat", "gemini", chat({"role": "user", "content": "x", "name": "bob"}), "messages[0].name"),
        ("openai_chat", "gemini", chat({"role": "user", "content": "x", "odd": 1}), "messages[0].odd"),
        ("openai_chat", "gemini", chat({"role": "function", "content": "x", "name": "f"}), "messages[0].role"),
        (
            "openai_chat",
            "gemini",
            chat({"role": "user", "content": "x"}, {"role": "system", "content": "y"}),
            "messages[1].role",
        ),
        (
            "openai_chat",
            "anthropic",
            chat({"role": "user", "content": [{"type": "video_url", "video_url": {"url": "u"}}]}),
            "messages[0].content[0].video_url",
        ),
        ("openai_chat", "anthropic", chat(tools=[{"type": "custom", "custom": {"name": "x"}}]), "tools[0].custom"),
        ("anthropic", "openai_chat", claude(top_k=5, mcp_servers=[{"url": "u"}]), "mcp_servers"),
        (
            "anthropic",
            "openai_chat",
            claude(tools=[{"type": "web_search_20250305", "name": "web_search"}]),
            "tools[0].web_search_20250305",
        ),
        (
            "anthropic",
            "gemini",
            claude({"role": "user", "content": [{"type": "search_result", "content": []}]}),
            "messages[0].content[0].search_result",
        ),
        ("gemini", "openai_chat", gemini(cachedContent="c"), "cachedContent"),
        ("gemini", "openai_chat", gemini(tools=[{"googleSearch": {"x": 1}}]), "tools[0].googleSearch"),
        # An empty object asks for something, too: it is how these are switched on.
        ("gemini", "openai_chat", gemini(tools=[{"googleSearch": {}}]), "tools[0].googleSearch"),
        ("gemini", "anthropic", gemini(tools=[{"code_execution": {}}]), "tools[0].code_execution"),
        ("openai_chat", "anthropic", chat(web_search_options={}), "web_search_options"),
        (
            "gemini",
            "openai_chat",
            gemini(generation_config={"speech_config": {"a": 1}}),
            "generation_config.speech_config",
        ),
        (
            "gemini",
            "anthropic",
            gemini(safetySettings=[{"category": "X", "threshold": "BLOCK_LOW_AND_ABOVE"}]),
            "safetySettings",
        ),
        (
            "openai_responses",
            "openai_chat",
            {"model": "m", "input": "x", "previous_response_id": "r"},
            "previous_response_id",
        ),
        (
            "openai_responses",
            "openai_chat",
            {"model": "m", "input": [{"type": "item_reference", "id": "i"}]},
            "input[0].item_reference",
        ),
        (
            "openai_responses",
            "gemini",
            {"model": "m", "input": "x", "tools": [{"type": "web_search"}]},
            "tools[0].web_search",
        ),
    ],
)
def test_what_cannot_be_carried_is_named(client, upstream, body, field):
    assert f"'{field}'" in refused(client, upstream, body).message


def test_a_droppable_field_stands_for_all_that_is_in_it():
    asked = claude(
        tools=[{"type": "bash_20250124", "name": "bash"}, {"name": "mine", "input_examples": [{"a": 1}]}],
        mcp_servers=[{"url": "u"}],
    )
    body = sent("anthropic", "openai_chat", asked, droppable=("tools[]", "mcp_servers"))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["mine"]
    assert (
        refused("anthropic", "openai_chat", asked, droppable=("tools[].bash_20250124",)).param
        == "tools[1].input_examples"
    )


PNG = "iVBORw0KGgo+/w=="


def test_images_and_documents():
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.PNG?s=1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
    ]
    asked = chat({"role": "user", "content": parts})
    assert sent("openai_chat", "anthropic", asked)["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://x.example/a.PNG?s=1"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            "title": "a.pdf",
        },
    ]
    assert sent("openai_chat", "gemini", asked)["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://x.example/a.PNG?s=1"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}},
    ]


def test_the_base64_of_urls_becomes_everybodys():
    data = PNG.replace("+", "-").replace("/", "_").rstrip("=")
    turn = {"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": data}}]}
    part = sent("gemini", "openai_chat", gemini(turn))["messages"][0]["content"][0]
    assert part["image_url"]["url"] == f"data:image/png;base64,{PNG}"


def test_media_only_some_have():
    audio = chat(
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}}]}
    )
    part = sent("openai_chat", "gemini", audio)["contents"][0]["parts"][0]
    assert part == {"inlineData": {"mimeType": "audio/mpeg", "data": "AA=="}}
    assert refused("openai_chat", "anthropic", audio).param == "messages[0].content[0].input_audio"
    back = gemini({"role": "user", "parts": [part]})
    assert sent("gemini", "openai_chat", back)["messages"][0]["content"] == audio["messages"][0]["content"]
    blank = chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a"}}]})
    assert refused("openai_chat", "gemini", blank).param == "messages[0].content[0].image_url"
    file = chat({"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]})
    assert refused("openai_chat", "anthropic", file).param == "messages[0].content[0].file"
    text = claude(
        {
            "role": "user",
            "content": [
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}, "title": "t"}
            ],
        }
    )
    assert sent("anthropic", "gemini", text)["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "text/plain", "data": "w6k="}}
    ]
    assert refused("anthropic", "openai_chat", text).param == "messages[0].content[0].source"


def test_images_in_results():
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
                    ],
                }
            ],
        },
    ]
    result = sent("anthropic", "gemini", claude(*turns))["contents"][-1]["parts"][0]["functionResponse"]
    assert result["parts"] == [{"inlineData": {"mimeType": "image/png", "data": PNG}}]
    assert refused("anthropic", "openai_chat", claude(*turns)).param == "messages[2].content[0].content[0].source"


@pytest.mark.parametrize(
    ("model", "effort", "limit", "thinking", "config"),
    [
        ("claude-opus-4-7", "high", None, {"type": "adaptive"}, {"effort": "high"}),
        ("claude-opus-4-7", "minimal", None, {"type": "adaptive"}, {"effort": "low"}),
        ("claude-opus-4-7", "none", None, None, None),
        ("claude-sonnet-4-5-20250929", "medium", None, {"type": "enabled", "budget_tokens": 8192}, None),
        ("claude-sonnet-4-20250514", "low", None, {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-3-7-sonnet", "high", 4000, {"type": "enabled", "budget_tokens": 2000}, None),
    ],
)
def test_efforts_for_anthropic(model, effort, limit, thinking, config):
    asked = chat(reasoning_effort=effort, **({"max_tokens": limit} if limit else {}))
    body = sent("openai_chat", "anthropic", asked, send_model=model)
    assert body.get("thinking") == thinking
    assert body.get("output_config") == config
    assert body["max_tokens"] > (thinking or {}).get("budget_tokens", 0)


def test_no_room_to_think():
    asked = chat(reasoning_effort="low", max_tokens=900)
    assert refused("openai_chat", "anthropic", asked, send_model="claude-3-7-sonnet").param == "reasoning_effort"


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gpt-4o-mini", None),  # refuses the field
        ("openai/gpt-4.1", None),
        ("gpt-5-pro", None),  # has one effort only
        ("gpt-5-mini", "minimal"),
        ("gpt-5.2", "low"),
        ("o3", "low"),
        ("gpt-oss-120b", "low"),
        ("qwen3-32b", "none"),
    ],
)
def test_no_thinking_in_a_chat(model, effort):
    asked = gemini(generationConfig={"thinkingConfig": {"thinkingBudget": 0}})
    assert sent("gemini", "openai_chat", asked, send_model=model).get("reasoning_effort") == effort


def test_efforts_elsewhere():
    assert sent("openai_chat", "gemini", chat(reasoning_effort="medium"))["generationConfig"] == {
        "thinkingConfig": {"thinkingLevel": "medium"}
    }
    old = sent("openai_chat", "gemini", chat(reasoning_effort="medium"), send_model="gemini-2.5-pro")
    assert old["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 8192}}
    budget = claude(thinking={"type": "enabled", "budget_tokens": 5000}, max_tokens=9000)
    assert sent("anthropic", "openai_chat", budget)["reasoning_effort"] == "medium"
    assert "reasoning_effort" not in sent("anthropic", "openai_chat", claude(thinking={"type": "disabled"}))
    config = {"thinkingConfig": {"thinkingBudget": 512, "includeThoughts": True}}
    there = sent("gemini", "anthropic", gemini(generationConfig=config))
    assert there["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert there["output_config"] == {"effort": "low"}


def test_reasoning_goes_back_to_who_signed_it():
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": "anthropic-claude-v1"}]
    said = chat({"role": "assistant", "content": "x", "reasoning_content": "Hm.", "reasoning_details": details})
    block = sent("openai_chat", "anthropic", said)["messages"][0]["content"][0]
    assert block == {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    assert "Hm." not in json.dumps(sent("openai_chat", "gemini", said))
    unsigned = chat({"role": "assistant", "content": "x", "reasoning_content": "Hm."})
    assert "Hm." not in json.dumps(sent("openai_chat", "anthropic", unsigned))


ASKED_TOOL = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
TOLD = {"role": "tool", "tool_call_id": "a", "content": "1"}


def test_a_model_that_thinks_by_budget_wants_its_thinking_back_before_it_goes_on():
    """Anthropic: 'When thinking is enabled, a final assistant message must start with a thinking block'."""
    loop = chat({"role": "user", "content": "x"}, ASKED_TOOL, TOLD, reasoning_effort="medium")
    fault = refused("openai_chat", "anthropic", loop, send_model="claude-sonnet-4-5")
    assert fault.param == "reasoning_effort"
    assert "without the reasoning" in fault.message
    left = sent("openai_chat", "anthropic", loop, send_model="claude-sonnet-4-5", droppable=("reasoning_effort",))
    assert "thinking" not in left
    assert sent("openai_chat", "anthropic", loop, send_model="claude-opus-4-6")["thinking"] == {"type": "adaptive"}
    thought = {"type": "reasoning.text", "text": "h", "signature": "s", "format": "anthropic-claude-v1"}
    loop["messages"][1] = {**ASKED_TOOL, "reasoning_details": [thought]}
    assert sent("openai_chat", "anthropic", loop, send_model="claude-sonnet-4-5")["thinking"]["type"] == "enabled"


def test_single_objects_stand_for_lists_in_geminis_requests():
    """As in Google's own examples for curl."""
    declared = {"function_declarations": {"name": "f"}}
    body = {"system_instruction": {"parts": {"text": "s"}}, "contents": {"parts": {"text": "x"}}, "tools": declared}
    said = sent("gemini", "openai_chat", body)
    assert said["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]
    assert [tool["function"]["name"] for tool in said["tools"]] == ["f"]


def test_defaults_that_gemini_has_words_for():
    config = {"thinkingConfig": {"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}}
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "HARM_BLOCK_THRESHOLD_UNSPECIFIED"}]
    body = gemini({"parts": [{"text": "x"}]}, generationConfig=config, safetySettings=safety)
    assert "reasoning_effort" not in sent("gemini", "openai_chat", body)


def test_a_text_as_a_document():
    part = {"inlineData": {"mimeType": "text/plain", "data": "w6Q="}}
    block = sent("gemini", "anthropic", gemini({"parts": [part]}))["messages"][0]["content"][0]
    assert block["source"] == {"type": "text", "media_type": "text/plain", "data": "ä"}
    part = {"inlineData": {"mimeType": "text/plain", "data": "/w=="}}  # no UTF-8
    assert "inlineData" in refused("gemini", "anthropic", gemini({"parts": [part]})).message


@pytest.mark.parametrize("uri", ["https://www.youtube.com/watch?v=x", "data:image/svg+xml,%3Csvg/%3E"])
def test_what_anthropic_does_not_fetch_is_named(uri):
    part = {"fileData": {"fileUri": uri}}
    assert "fileData" in refused("gemini", "anthropic", gemini({"parts": [part]})).message
    image = {"type": "image_url", "image_url": {"url": uri}}
    if uri.startswith("data:"):
        assert "image_url" in refused("openai_chat", "anthropic", chat({"role": "user", "content": [image]})).message


def test_a_media_type_that_is_often_written():
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}"}}
    block = sent("openai_chat", "anthropic", chat({"role": "user", "content": [image]}))["messages"][0]["content"][0]
    assert block["source"]["media_type"] == "image/jpeg"


def test_what_openai_refuses_in_a_chat():
    """'metadata' where nothing is stored, an effort that it has no word for, a text without text."""
    asked = {"model": "m", "input": "x", "metadata": {"a": "b"}, "prompt_cache_key": "k"}
    said = sent("openai_responses", "openai_chat", asked)
    assert "metadata" not in said
    assert said["prompt_cache_key"] == "k"
    most = claude(thinking={"type": "adaptive"}, output_config={"effort": "max"})
    assert sent("anthropic", "openai_chat", most, send_model="gpt-5.2")["reasoning_effort"] == "xhigh"
    assert sent("anthropic", "openai_chat", most, send_model="deepseek-v4")["reasoning_effort"] == "max"
    signed = {"role": "model", "parts": [{"text": "a"}, {"text": "", "thoughtSignature": "c2ln"}]}
    assert sent("gemini", "openai_chat", gemini(signed))["messages"][0]["content"] == "a"


def test_the_older_name_of_anthropics_formats():
    asked = claude(output_format={"type": "json_schema", "schema": {"type": "object"}})
    assert sent("anthropic", "openai_chat", asked)["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_the_limit_that_anthropic_wants():
    assert sent("openai_chat", "anthropic", chat())["max_tokens"] == 8192
    assert sent("openai_chat", "anthropic", chat(), max_tokens=64000)["max_tokens"] == 64000


def test_limits_by_the_name_that_the_model_knows():
    assert sent("anthropic", "openai_chat", claude())["max_tokens"] == 100
    assert sent("anthropic", "openai_chat", claude(), send_model="o4-mini")["max_completion_tokens"] == 100


def test_streams():
    body = sent("anthropic", "openai_chat", claude(stream=True))
    assert body["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent("anthropic", "openai_chat", claude(stream=True), usage=False)
    text = json.dumps(claude(stream=True)).encode()
    path = Translation("anthropic", "gemini", text, Asked(send_model="a/b c")).sent.path
    assert path == b"/v1beta/models/a%2Fb%20c:streamGenerateContent?alt=sse"
    text = json.dumps(gemini()).encode()
    streamed = Translation("gemini", "anthropic", text, Asked(model="m", stream=True)).sent
    assert json.loads(streamed.body)["stream"] is True


def test_responses_items():
    asked = {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "x"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                ],
            },
            {
                "type": "message",
                "role": "assistant",
                "id": "m1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "So.", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c1", "id": "fc", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "r"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "function", "name": "f"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 7,
        "reasoning": {"effort": "low", "summary": "auto"},
    }
    body = sent("openai_responses", "openai_chat", asked)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][2]["content"] == "So."
    assert body["messages"][2]["tool_calls"][0]["id"] == body["messages"][3]["tool_call_id"] == "c1"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (body["max_tokens"], body["reasoning_effort"]) == (7, "low")
    claudes = sent("openai_responses", "anthropic", asked)
    assert claudes["messages"][1]["content"][1]["type"] == "tool_use"


@pytest.mark.parametrize(
    ("client", "body", "field"),
    [
        ("openai_chat", {"model": "m", "messages": 3}, "messages"),
        ("openai_chat", {"model": "m", "messages": [3]}, "messages[0]"),
        ("openai_chat", chat(temperature="hot"), "temperature"),
        ("openai_chat", chat(max_tokens=10**30), "max_tokens"),
        ("openai_chat", chat(tool_choice="maybe"), "tool_choice"),
        ("anthropic", claude({"role": "robot", "content": "x"}), "messages[0].role"),
        ("anthropic", claude(stop_sequences=[1]), "stop_sequences"),
        (
            "gemini",
            gemini(generationConfig={"maxOutputTokens": 1, "max_output_tokens": 2}),
            "generationConfig.max_output_tokens",
        ),
        ("gemini", gemini({"parts": [{"text": 3}]}), "contents[0].parts[0].text"),
        (
            "openai_responses",
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": {}}]}]},
            "input[0].content[0].text",
        ),
    ],
)
def test_what_is_wrong_is_named(client, body, field):
    upstream = "anthropic" if client != "anthropic" else "openai_chat"
    with pytest.raises(BadBody) as caught:
        sent(client, upstream, body)
    assert caught.value.param == field


def test_arguments_that_are_no_object():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    asked = chat({"role": "assistant", "content": None, "tool_calls": [call]})
    for upstream in ("anthropic", "gemini"):
        assert refused("openai_chat", upstream, asked).param == "messages[0].tool_calls[0].function.arguments"


def test_which_pairs_there_are():
    assert translates("openai_responses", "openai_chat")
    assert translates("openai_chat", "gemini")
    assert not translates("openai_chat", "openai_responses")
    assert not translates("openai_embeddings", "gemini")
    with pytest.raises(Untranslatable):
        Translation("openai_chat", "openai_responses", b"{}", Asked())
