"""Examples for the OpenAPI document, put together from those that its fields carry."""

from collections.abc import Mapping
from typing import Any

A_TIME = "2026-11-27T17:00:00Z"
# Where the type alone says enough.
_OF_TYPE: Mapping[str, Any] = {"boolean": False, "integer": 1, "number": 1.0, "null": None}


class NoExample(Exception):
    """Nothing says what a value looks like. The text names it."""


def of(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "") -> Any:
    """Return a value that fits a schema and looks like a real one. Raises NoExample."""
    if schema.get("examples"):
        return schema["examples"][0]
    if "$ref" in schema:
        called = schema["$ref"].rsplit("/", 1)[-1]
        return of(components[called], components, name or called)
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return of(schema["anyOf"][0], components, name)
    return _of_type(schema, components, name)


def _of_type(schema: Mapping[str, Any], components: Mapping[str, Any], name: str) -> Any:
    kind = schema.get("type", "")
    if kind == "object":
        fields = schema.get("properties", {})
        return {key: of(field, components, f"{name}.{key}") for key, field in fields.items()}
    if kind == "array":
        return [of(schema.get("items", {}), components, f"{name}[]")]
    if schema.get("format") == "date-time":
        return A_TIME
    if kind not in _OF_TYPE:
        raise NoExample(name)
    return _OF_TYPE[kind]
