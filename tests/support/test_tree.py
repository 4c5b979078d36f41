"""The rules of the tree of tests, by reading every file of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOURCE = Path(__file__).parents[2] / "mdl"
FILES = sorted(TESTS.rglob("*.py"))
WHOLE_TREE = {
    *("test_architecture", "test_benchmarks_page", "test_configuration_page"),
    *("test_how_to_add", "test_python_api", "test_scale_page"),
}
"""Unit tests that belong to no module, but to mdl as a whole."""


_MAY_IMPORT = re.compile(r"^\s*(from|import)\b[^(\n]*(\([^)]*)?\btest_", re.MULTILINE)
"""Only such a file is parsed."""


def imports(tree: ast.AST) -> set[str]:
    """The full name of every module, or name in a module, that a file imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module or ''}.{one.name}" for one in node.names}
    return found


def is_a_test(name: str) -> bool:
    return any(part.startswith("test_") for part in name.split("."))


def names_of(tree: ast.AST) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("source", ["from tests.unit.test_x import a", "import test_x", "from .test_x import a"])
def test_an_import_of_a_test_is_seen(source: str) -> None:
    """The check of the next test can fail."""
    assert _MAY_IMPORT.search(source)
    assert any(is_a_test(name) for name in imports(ast.parse(source)))


def test_no_test_imports_a_test() -> None:
    """What two test modules share stands in ``support`` or in the one conftest."""
    for file in FILES:
        text = file.read_text("utf-8")
        guilty = {name for name in imports(ast.parse(text)) if is_a_test(name)} if _MAY_IMPORT.search(text) else set()
        assert not guilty, f"{file} imports {guilty}"
    assert [file for file in FILES if file.name == "conftest.py"] == [TESTS / "conftest.py"]


def test_rooms_of_tests() -> None:
    """There are seven folders, and one of the plug-ins where they are; the tests of ``unit`` lie where the module that
    they test lies in mdl."""
    folders = {file.name for file in TESTS.iterdir() if file.is_dir() and file.name[0] not in "._"}
    assert folders - {"plugins"} == {"unit", "engine", "cli", "system", "support", "corpus", "fuzz"}
    rooms = {file.parent.relative_to(TESTS / "unit") for file in FILES if file.is_relative_to(TESTS / "unit")}
    assert [room for room in rooms if not (SOURCE / room).is_dir()] == []
    for file in (TESTS / "unit").glob("test_*.py"):
        name = file.stem.removeprefix("test_")
        assert file.stem in WHOLE_TREE or (SOURCE / f"{name}.py").is_file(), f"{file} tests no module of mdl"


def test_support_has_no_tests_but_of_the_doubles() -> None:
    """Fixtures and servers hold no assertion about mdl under a test's name."""
    for file in (TESTS / "support").rglob("*.py"):
        tests = {name for name in names_of(ast.parse(file.read_bytes())) if name.startswith("test_")}
        assert not tests or file.name.startswith("test_"), f"{file} holds {tests}"
