"""The API's reference as a page, and as the generated parts of docs/api.md.

Both are made from the OpenAPI document, `problems.CODES` and the guide; nothing is said twice.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from workspaces.api.guide import SECTIONS
from workspaces.api.problems import CODES
from workspaces.api.schema import STREAM, TAGS, TOKEN

Document = Mapping[str, Any]
PREFIX = "/api/v1"
SHORT = 40
TITLES: Mapping[str, str] = {
    "workspaces": "Workspaces",
    "live": "Live",
    "setup": "Plugins, secrets, images",
    "people": "Members and tokens",
    "operators": "For operators",
    "webhooks": "Webhooks",
}


@dataclass(frozen=True)
class Field:
    """One thing that goes in or comes out: a parameter, or a field of a body."""

    name: str
    kind: str
    words: str
    where: str = ""
    required: bool = False
    # The shape of which it is, where that is one of ours.
    shape: str = ""


@dataclass(frozen=True)
class Shape:
    """What an answer or a body looks like."""

    name: str
    words: str
    fields: Sequence[Field]

    @property
    def anchor(self) -> str:
        """Where links to it lead."""
        return f"shape-{self.name}"


@dataclass(frozen=True)
class Answer:
    """What comes when nothing goes wrong."""

    status: int
    words: str
    shape: str
    is_list: bool
    examples: Sequence[tuple[str, str]]
    headers: Sequence[Field]


@dataclass(frozen=True)
class Operation:
    """One method of one address."""

    anchor: str
    method: str
    path: str
    title: str
    words: str
    scopes: Sequence[str]
    parameters: Sequence[Field]
    body: Sequence[Field]
    answers: Sequence[Answer]
    problems: Sequence[str]
    curl: str


@dataclass(frozen=True)
class Group:
    """The operations about one thing."""

    tag: str
    title: str
    words: str
    operations: Sequence[Operation]


# --- reading the document -------------------------------------------------------------------------


def groups_of(document: Document) -> list[Group]:
    """Return all operations, as people read of them."""
    found: dict[str, list[Operation]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            operation = _operation(document, method.upper(), path, told)
            found.setdefault(told["tags"][0], []).append(operation)
    return [
        Group(tag, TITLES.get(tag, tag.capitalize()), TAGS.get(tag, ""), operations)
        for tag, operations in found.items()
        if operations
    ]


def _operation(document: Document, method: str, path: str, told: Document) -> Operation:
    components = document["components"]["schemas"]
    answers = [
        _answer(int(status), answer, components)
        for status, answer in told["responses"].items()
        if int(status) < 300
    ]
    return Operation(
        anchor=told["operationId"],
        method=method,
        path=path.removeprefix(PREFIX),
        title=told["summary"],
        words=told["description"],
        scopes=[scope for demand in told["security"] for scope in demand[TOKEN]],
        parameters=[_parameter(parameter, components) for parameter in told["parameters"]],
        body=_body_fields(told, components),
        answers=answers,
        problems=[code for answer in told["responses"].values() for code in _codes_in(answer)],
        curl=_curl(method, path, told),
    )


def _parameter(told: Document, components: Document) -> Field:
    return Field(
        told["name"],
        kind_of(told["schema"], components),
        told["description"],
        told["in"],
        required=told.get("required", False),
    )


def _body_fields(told: Document, components: Document) -> Sequence[Field]:
    for media in told.get("requestBody", {}).get("content", {}).values():
        schema = media["schema"]
        if "$ref" in schema:
            schema = components[schema["$ref"].rsplit("/", 1)[-1]]
        return _fields(schema, components)
    return []


def _codes_in(answer: Document) -> Iterable[str]:
    content = answer.get("content", {}).get("application/problem+json", {})
    return list(content.get("examples", {}))


def _answer(status: int, told: Document, components: Document) -> Answer:
    content = told.get("content", {})
    schemas = [media["schema"] for media in content.values()]
    headers = [
        Field(name, kind_of(header["schema"], components), header["description"])
        for name, header in told["headers"].items()
        if not name.startswith("RateLimit")  # every answer has them: the guide says so
    ]
    return Answer(
        status,
        told["description"],
        _shape_of({"anyOf": schemas}, components),
        any("/Page_" in schema.get("$ref", "") for schema in schemas),
        [_example(kind, media["example"]) for kind, media in content.items()],
        headers,
    )


def _example(kind: str, value: Any) -> tuple[str, str]:
    if kind == STREAM:
        return "Answer, as a stream", str(value).strip()
    return "Answer", json.dumps(value, indent=2, ensure_ascii=False)


def shapes_of(document: Document) -> list[Shape]:
    """Return what comes out, by name; bodies are shown where they are sent."""
    components = document["components"]["schemas"]
    return [
        Shape(name_of(name), schema.get("description", ""), _fields(schema, components))
        for name, schema in components.items()
        if _is_shape(name, schema)
    ]


def _is_shape(name: str, schema: Document) -> bool:
    """Whether it comes out, and is neither one value nor a part of a list."""
    comes_out = not name.startswith("Page_") and not name.endswith(("In", "Changes"))
    return comes_out and schema.get("type") == "object"


def name_of(component: str) -> str:
    """Return what people read for a component: WorkspaceOut → Workspace."""
    return component.removesuffix("_").removeprefix("Page_").removesuffix("Out")


def _shape_of(schema: Document, components: Document) -> str:
    """Return the name of the shape that a schema is, or that its lists are of; empty for none."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        is_list = name.startswith("Page_")
        return name_of(name) if is_list or _is_shape(name, components[name]) else ""
    inner = [schema.get("items", {}), *schema.get("anyOf", [])]
    return next((name for part in inner if part and (name := _shape_of(part, components))), "")


def _fields(schema: Document, components: Document) -> list[Field]:
    required = schema.get("required", ())
    return [
        Field(
            name,
            kind_of(field, components),
            field.get("description", ""),
            required=name in required,
            shape=_shape_of(field, components),
        )
        for name, field in schema.get("properties", {}).items()
    ]


def kind_of(schema: Document, components: Document) -> str:
    """Return in words what values a schema takes."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind_of(part, components) for part in schema["anyOf"]))
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        is_shape = _is_shape(name, components[name])
        return name_of(name) if is_shape else kind_of(components[name], components)
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}), components)}"
    return _kind_of_value(schema)


def _kind_of_value(schema: Document) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return f"always {schema['const']}"
    if schema.get("type") == "string":
        return "time" if schema.get("format") == "date-time" else "text"
    return str(schema.get("type", "value")) + _limits(schema)


def _limits(schema: Document) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None or high is None:
        return ""
    return f", {low:g} to {high:g}"


def _curl(method: str, path: str, told: Document) -> str:
    """Return a command that does it, with values that look real."""
    given = {parameter["name"]: parameter for parameter in told["parameters"]}
    query = {
        name: parameter["example"]
        for name, parameter in given.items()
        if parameter["in"] == "query" and parameter.get("required")
    }
    for name, parameter in given.items():
        path = path.replace(f"{{{name}}}", str(parameter.get("example", "")))
    address = settings.CLOUD_URL + path + (f"?{urlencode(query)}" if query else "")
    lines = [f"curl {'' if method == 'GET' else f'-X {method} '}{shlex.quote(address)}"]
    lines.append('-H "Authorization: Bearer $TOKEN"')
    if key := given.get("Idempotency-Key"):
        lines.append(f"-H {shlex.quote('Idempotency-Key: ' + key['example'])}")
    for media in told.get("requestBody", {}).get("content", {}).values():
        body = json.dumps(media["example"], ensure_ascii=False)
        if len(body) > SHORT:
            body = json.dumps(media["example"], ensure_ascii=False, indent=2).replace("\n", "\n  ")
        lines.append(f"--json {shlex.quote(body)}")
    return " \\\n  ".join(lines)


# --- the page -------------------------------------------------------------------------------------


def page(document: Callable[[], Document]) -> Callable[[HttpRequest], HttpResponse]:
    """Return the view of the page about a document. What it shows is made once per process."""

    @cache
    def content() -> str:
        return render_to_string("api/_reference.html", _context(document()))

    def reference(request: HttpRequest) -> HttpResponse:
        return render(request, "api/reference.html", {"content": content()})

    return reference


def _context(document: Document) -> dict[str, Any]:
    return {
        "guide": SECTIONS,
        "groups": groups_of(document),
        "shapes": shapes_of(document),
        "codes": CODES.items(),
        "base_url": f"{settings.CLOUD_URL}{PREFIX}",
        "first": f"export TOKEN=cloudapp_…\ncurl {settings.CLOUD_URL}{PREFIX}/workspaces \\\n"
        '  -H "Authorization: Bearer $TOKEN"',
    }


# --- the parts of docs/api.md ---------------------------------------------------------------------

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_parts(text: str, document: Document) -> str:
    """Return a Markdown document with its generated parts as they should be."""
    parts = {
        "guide": _guide_part,
        "operations": lambda: _operations_part(document),
        "errors": _errors_part,
    }
    return _PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]().strip()}\n\n{found[3]}", text)


def _guide_part() -> str:
    return "\n\n".join(f"### {section.title}\n\n{section.text.strip()}" for section in SECTIONS)


def _operations_part(document: Document) -> str:
    return "\n\n".join(
        f"**{group.title}**\n\n"
        + _table(
            ("", "", "scope"),
            (
                (f"`{one.method} {one.path}`", one.title, " or ".join(one.scopes) or "any")
                for one in group.operations
            ),
        )
        for group in groups_of(document)
    )


def _errors_part() -> str:
    return _table(
        ("code", "status", "meaning", "what to do"),
        ((f"`{name}`", str(code.status), code.title, code.help) for name, code in CODES.items()),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
