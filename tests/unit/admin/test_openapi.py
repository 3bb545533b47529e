from __future__ import annotations

from gateway.admin.app import handler_of
from gateway.admin.openapi import ROUTES, document


def test_the_document_is_whole() -> None:
    text = document("1.0")
    assert text["openapi"] == "3.1.0"
    schemas = text["components"]["schemas"]

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [ref for part in value.values() for ref in references(part)]
        return [ref for part in value for ref in references(part)] if isinstance(value, list) else []

    assert {ref.removeprefix("#/components/schemas/") for ref in references(text)} <= set(schemas)
    assert all(
        "description" in schema for schema in schemas.values() if schema["title"] not in ("Health", "WorkersView")
    )


def test_every_route_has_a_handler_and_every_parameter_a_meaning() -> None:
    for route in ROUTES:
        assert callable(handler_of(route.name))
    for path in document("1.0")["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                assert parameter["in"] == "path" or parameter["description"]
