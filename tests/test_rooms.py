"""Imports run one way: cloudapp → workspaces → accounts, deploy. Nothing dodges that."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

# What each room may import of the others.
MAY_KNOW = {
    "accounts": set[str](),
    "deploy": set[str](),
    "workspaces": {"accounts", "deploy"},
    "cloudapp": {"accounts", "deploy", "workspaces"},
    # Another program, which knows the API only.
    "cloudctl": set[str](),
}


def files(room: str) -> Iterator[Path]:
    for path in sorted((PROJECT / room).rglob("*.py")):
        # The customer's image is another program, with its own interpreter.
        other = (PROJECT / "deploy" / "workspace", PROJECT / "deploy" / "plugins")
        if not any(path.is_relative_to(directory) for directory in other):
            yield path


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno


@pytest.mark.parametrize("room", MAY_KNOW)
def test_a_room_imports_only_what_it_may_know(room: str) -> None:
    seen = 0
    wrong = []
    for path in files(room):
        for module, line in imported(ast.parse(path.read_text())):
            top = module.split(".")[0]
            seen += 1
            if top in MAY_KNOW and top != room and top not in MAY_KNOW[room]:
                wrong.append(f"{path.relative_to(PROJECT)}:{line} imports {module}")
    assert seen > 10
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["accounts", "deploy", "workspaces"])
def test_no_import_hides_in_a_function(room: str) -> None:
    hidden = [
        f"{path.relative_to(PROJECT)}:{node.lineno}"
        for path in files(room)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        # Django's own way to register signals and checks.
        and function.name != "ready"
    ]
    assert not hidden, "\n".join(hidden)


def test_only_the_docker_engine_imports_the_docker_sdk() -> None:
    importers = {
        path.relative_to(PROJECT).as_posix()
        for room in MAY_KNOW
        for path in files(room)
        for module, _ in imported(ast.parse(path.read_text()))
        if module.split(".")[0] == "docker"
    }
    assert importers
    assert all(name.startswith("deploy/engines/docker") for name in importers), importers


@pytest.mark.parametrize("name", ["states.py", "plan.py", "engines/base.py"])
def test_the_pure_parts_need_only_the_standard_library(name: str) -> None:
    tree = ast.parse((PROJECT / "deploy" / name).read_text())
    tops = {module.split(".")[0] for module, _ in imported(tree)}
    assert tops <= {"collections", "dataclasses", "datetime", "deploy", "enum", "typing"}, tops


def test_only_lifecycle_and_leases_write_instances() -> None:
    writers = {
        path.relative_to(PROJECT).as_posix()
        for room in MAY_KNOW
        for path in files(room)
        if "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("update", "bulk_update", "create", "bulk_create", "get_or_create")
        and "Instance.objects" in ast.unparse(node.func)
    }
    assert writers <= {"deploy/lifecycle.py", "deploy/leases.py"}, writers
