"""Scanning request bodies: exact spans, no ambiguity, no bombs."""

from __future__ import annotations

import json

import msgspec
import pytest

from gateway.call import Edit
from gateway.dialects import body as scanner
from gateway.dialects.body import MAX_DEPTH, nested, read_object, scan, splice
from gateway.errors import BadBody


def refused(text):
    with pytest.raises(BadBody) as caught:
        scan(text if isinstance(text, bytes) else text.encode())
    return caught.value.code


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"m","n":1,"x":{"a":[1,{"b":2}]},"t":true,"z":null}',
        ' {\n "model" : "m" ,\t"n":1 , "x" : { "a" : [ 1 ] } , "e" : "" } \r\n',
        '{"model":"ü😀","a":"\\"}{,:","b":"]"}',
        "{}",
        " { } ",
        '{"mod\\u0065l":"m","stream":true}',
        '{"a\\"b":1,"c\\\\":[2],"":3}',
    ],
)
def test_fields_and_spans(text):
    body = text.encode()
    fields, spans = scan(body)
    whole = json.loads(text)
    assert list(fields) == list(spans) == list(whole)
    for key, (start, end) in spans.items():
        assert json.loads(body[start:end]) == whole[key]
        assert bytes(fields[key]) == body[start:end]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ('{"a":1}x', "invalid_json"),
        ('{"a":1}{"b":2}', "invalid_json"),
        ('{"a":NaN}', "invalid_json"),
        ('{"a":[Infinity]}', "invalid_json"),
        ('{"a":-}', "invalid_json"),
        ('{"a":"\\ud800"}', "invalid_json"),
        ('{"a":["\\udc00 tail"]}', "invalid_json"),
        ('{"a":"\\ud83d\\u0041 tail"}', "invalid_json"),
        ("\ufeff{}", "invalid_json"),
        ("[1,2]", "not_an_object"),
        ('"text"', "not_an_object"),
        ("null", "not_an_object"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"\xc3":1}', "invalid_utf8"),
        ('{"a":1,"a":1}', "duplicate_key"),
        ('{"model":"a","stream":true,"model":"b"}', "duplicate_key"),
        ('{"stream":true,"model":"a", "model" :"a"}', "duplicate_key"),
        ('{"model":"a","mod\\u0065l":"b"}', "duplicate_key"),
        ('{"\\u006dodel":"a","\\u006dodel":"b"}', "duplicate_key"),
        ('{"model":"a","Model":"b"}', "duplicate_key"),
        ('{"a":10,"a":1}', "duplicate_key"),
        ('{"a":1e99999}', "invalid_number"),
        ('{"a":1E+99999}', "invalid_number"),
        ('{"a":{"b":[1e-99999]}}', "invalid_number"),
        ('{"a":["some text", 1e99999]}', "invalid_number"),
        ('{"a":["some text", 1E-99999]}', "invalid_number"),
        ('{"a":["a \\"quote\\" in it", 1e99999]}', "invalid_number"),
        ('{"a":["a backslash \\\\", 1e99999, ""]}', "invalid_number"),
        ('{"a":["text", %s]}' % ("9" * 2000), "invalid_number"),
        ('{"a":["text", %s]}' % ("[" * 200 + "]" * 200), "json_too_deep"),
        ('{"a":%s}' % ("9" * 2000), "invalid_number"),
        ('{"a":[0.%s]}' % ("9" * 2000), "invalid_number"),
        ('{{"a":[-{}.{}]}}'.format("9" * 700, "9" * 700), "invalid_number"),
        ('{"a":%s}' % ("[" * 100_000), "json_too_deep"),
        ('{{"a":{}{}}}'.format("[" * 300, "]" * 300), "json_too_deep"),
        ("{{{}}}".format(",".join(f'"k{i}":{i}' for i in range(10_001))), "json_too_complex"),
        ('{{"a":[{}]}}'.format(",".join("1" for _ in range(600_000))), "json_too_complex"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_refused(text, code):
    assert refused(text) == code


def test_a_duplicate_names_its_field():
    with pytest.raises(BadBody) as caught:
        scan(b'{"n":1,"max_tokens":5,"max_tok\\u0065ns":6}')
    assert caught.value.param == "max_tokens"
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("key", ["messages", "other"])
def test_depth_is_exact(kind, key):
    """128 levels pass, 129 do not, whatever they are made of and wherever they stand."""
    opens, closes = kind
    size = len(closes)
    for levels in (MAX_DEPTH, MAX_DEPTH + size):
        inside = opens * ((levels - 2) // size) + "1" + closes * ((levels - 2) // size)
        text = f'{{"{key}":[{inside}]}}'
        depth = 2 + (levels - 2) // size * size
        for _ in range(2):  # the second time from memory
            if depth <= MAX_DEPTH:
                read_object(text.encode(), ("messages",))
            else:
                with pytest.raises(BadBody) as caught:
                    read_object(text.encode(), ("messages",))
                assert caught.value.code == "json_too_deep"


def test_depth_is_that_of_the_place_not_of_the_piece():
    """A piece known from one level deeper or higher is judged anew."""
    piece = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    scan(f'{{"a":{piece}}}'.encode())
    with pytest.raises(BadBody):
        read_object(f'{{"a":[{piece}]}}'.encode(), ("a",))


def test_brackets_and_digits_inside_strings_do_not_count():
    text = {"messages": [{"content": "[{" * 5000 + '\\"' + "9" * 5000 + " 1e99999"}], "prompt": "1e99999" + "7" * 3000}
    fields, _ = scan(json.dumps(text).encode())
    assert json.loads(bytes(fields["messages"])) == text["messages"]


def test_items_of_arrays():
    found = read_object(b'{"messages":[ {"a":1} , "x", 3 ],"tools":[1]}', ("messages",))
    assert [bytes(item) for item in found.items["messages"]] == [b'{"a":1}', b'"x"', b"3"]
    assert "tools" not in found.items


def test_large_arrays_are_checked_item_by_item():
    messages = [{"role": "user", "content": f"{i} " * 50} for i in range(200)]
    found = read_object(json.dumps({"m": messages}).encode())
    assert [json.loads(bytes(item)) for item in found.items["m"]] == messages


def test_a_known_piece_is_not_looked_at_again_and_a_refused_one_every_time(monkeypatch):
    looked = []
    check = scanner._check_new
    monkeypatch.setattr(scanner, "_check_new", lambda *piece: looked.append(piece[0]) or check(*piece))
    for _ in range(2):
        scan(b'{"harmless":[1,2,3,"a piece of its own"]}')
        assert refused(b'{"deep":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}") == "json_too_deep"
    assert len(looked) == 3


def test_the_table_of_known_pieces_does_not_grow():
    before = len(scanner._known)
    for number in range(100):
        scan(b'{"piece":[%d,"%d"]}' % (number, number * 7919))
    assert len(scanner._known) == before


def test_nested_spans_are_those_of_the_body():
    body = b'{"a":1,"stream_options": {"x":1, "include_usage":false}}'
    _, spans = scan(body)
    fields, inner = nested(body, spans["stream_options"], "stream_options")
    start, end = inner["include_usage"]
    assert body[start:end] == b"false"
    assert fields["x"] == msgspec.Raw(b"1")


def test_nested_duplicates_name_the_whole_path():
    body = b'{"stream_options":{"include_usage":true,"include_usage":false}}'
    _, spans = scan(body)
    with pytest.raises(BadBody) as caught:
        nested(body, spans["stream_options"], "stream_options")
    assert (caught.value.code, caught.value.param) == ("duplicate_key", "stream_options.include_usage")


def test_splice():
    assert splice(b"0123456789", [Edit(5, 7, b"xyz"), Edit(0, 0, b"<"), Edit(10, 10, b">")]) == b"<01234xyz789>"
    assert splice(b"same", []) == b"same"
    with pytest.raises(ValueError, match="overlap"):
        splice(b"0123", [Edit(0, 2, b""), Edit(1, 3, b"")])
    with pytest.raises(ValueError, match="leave"):
        splice(b"0123", [Edit(3, 9, b"")])


@pytest.mark.parametrize("text", ["1e99999", '[[[["', '\\"1e99999', "\\\\", "9" * 2000, "[" * 500, "\\n" * 50])
@pytest.mark.parametrize("strings", [1, 100])
def test_what_stands_in_strings_is_no_number_and_does_not_nest(text: str, strings: int) -> None:
    inside = "x" + text.replace('"', '\\"') if not text.startswith("\\") else "x" + text
    read_object(b'{"a":[%b]}' % ",".join([f'"{inside}"'] * strings).encode())


HIDDEN = b'{"type":"web_search","type":"function","name":"f"}'


@pytest.mark.parametrize(
    "tools",
    [
        HIDDEN,
        HIDDEN.replace(b'"type":"function"', b'"typ\\u0065":"function"'),
        HIDDEN.replace(b'"name":"f"', b'"name":"\\u0022\\u0022\\u0022\\u0022"'),
        b'{"type":"function","function":{"name":"a","name":"b"}}',
    ],
)
@pytest.mark.parametrize("padding", [b"", b'{"name":"' + b"x" * 5000 + b'"},'])
def test_a_tool_cannot_be_two_things(tools: bytes, padding: bytes) -> None:
    body = b'{"messages":[%b],"tools":[%b%b]}' % (tools, padding, tools)  # that it was seen elsewhere says nothing
    for _ in range(2):
        with pytest.raises(BadBody) as raised:
            read_object(body)
        assert (raised.value.code, raised.value.param) == ("duplicate_key", "tools")
    read_object(b'{"messages":[%b]}' % tools)
    scan(body)  # which is for answers, too: there it is for the reader to judge


def test_a_tool_with_escaped_quotes_is_one_thing() -> None:
    read_object(b'{"tools":[{"name":"f","description":"say \\u0022hi\\u0022 or \\"ho\\""}]}')


def test_a_number_beyond_all_types_hides_nothing_and_passes() -> None:
    read_object(b'{"tools":[{"name":"f","x":1e400}]}')
    with pytest.raises(BadBody):
        read_object(b'{"tools":[{"name":"f","x":1e400,"name":"g"}]}')
