"""The rules of the tree of tests, by reading every file of it."""

from __future__ import annotations

import ast
import gc
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOURCE = Path(__file__).parents[2] / "mdl"
FILES = sorted(TESTS.rglob("*.py"))
WHOLE_TREE = {
    *("test_architecture", "test_benchmarks_page", "test_configuration_page"),
    *("test_one_bound", "test_python_api", "test_scale_page"),
}
"""Unit tests that belong to no module, but to mdl as a whole."""


PRIVATE = {
    # A race between two steps of one method, which nothing from outside can hit.
    "cli/test_import.py": {"_Import", "_place"},
    # The clock of a connection runs while the test decides how much the client has taken.
    "plugins/serve/test_serve_attacked.py": {"_deadline", "_look", "_sending", "_still_untaken", "_untaken"},
    # The demo without its steps.
    "cli/test_schemas.py": {"_download", "_release"},
    # Readers of other people's bytes, that a public name calls only after a request.
    "fuzz/targets.py": {"_parse_item"},
    # Names of Python's and of libraries, which have no public one.
    "conftest.py": {"_get_local_constants"},
    "system/test_shared_folder.py": {"_O_TMPFILE_WORKS"},
    "cli/test_help.py": {"_protected_args"},
}
"""Private names that a test uses of something that is not its own, by file. A test goes in by the public door: whoever
adds a line here says why there is none."""
_DOCUMENTED = {"_exit", "_fields", "_repr_html_", "_repr_mimebundle_"}
"""What begins with an underscore and is for everybody all the same."""
_PRIVATE_NAME = re.compile(r"(^|\.)(_[A-Za-z]\w*)$")


_MAY_IMPORT = re.compile(r"^\s*(from|import)\b[^(\n]*(\([^)]*)?\btest_", re.MULTILINE)
"""Only such a file is parsed."""


@cache
def parsed(file: Path) -> ast.Module:
    """The source of a file of tests, of which nothing is garbage."""
    gc.disable()
    try:
        return ast.parse(file.read_bytes())
    finally:
        gc.freeze()
        gc.enable()


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


def private_names(tree: ast.AST) -> set[str]:
    """The private names of others that a file imports, reads or patches."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and not _is_own(node.value):
            names = [node.attr]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith("attr"):
            names = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        else:
            continue
        for name in names:
            private = _PRIVATE_NAME.search(name)
            if private and not private[2].startswith("__") and private[2] not in _DOCUMENTED:
                found.add(private[2])
    return found


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.parametrize(
    "source",
    ["patch.setattr(module, '_x', 1)", "patch.setattr('mdl.a._x', 1)", "from mdl.a import _x", "a.b._x", "a._x = 1"],
)
def test_a_private_name_is_seen(source: str) -> None:
    """The check of the next test can fail."""
    assert private_names(ast.parse(source)) == {"_x"}


def test_tests_go_in_by_the_public_door() -> None:
    """No test patches, imports or reads a private name, but for those of the list, which is not longer than needed."""
    used = {str(file.relative_to(TESTS)): private_names(parsed(file)) for file in FILES}
    unused = {name for name in PRIVATE if not (TESTS / name).exists() and not name.startswith("plugins")}
    assert unused == set()
    assert {name: names for name, names in used.items() if names} == {
        name: names for name, names in PRIVATE.items() if name in used
    }


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
        tests = {name for name in names_of(parsed(file)) if name.startswith("test_")}
        assert not tests or file.name.startswith("test_"), f"{file} holds {tests}"
