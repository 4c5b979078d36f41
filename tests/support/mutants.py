"""Which changes of a pure module its own tests notice.

    python tests/support/mutants.py [--most 40] [ROOM …]

One comparison, constant, operator or ``not`` of a module is changed at a time, and the tests of the module are run on
it, in a process of their own, until one fails. What survives is printed with its line: either a test is missing, or the
change makes no difference. Every room is tried with at most ``--most`` mutants, spread over the module; 0 means all.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "policy": (
        "mdl/net/policy.py",
        "tests/unit/net/test_policy.py tests/unit/downloader/test_schedule.py tests/unit/net/test_http_errors.py",
    ),
    "judge": ("mdl/net/responses.py", "tests/unit/net/test_responses.py"),
    "ranges": ("mdl/net/ranges.py", "tests/unit/net/test_ranges.py tests/unit/net/test_range_requests.py"),
    "schedule": (
        "mdl/downloader/schedule.py",
        "tests/unit/downloader/test_schedule.py tests/unit/downloader/test_connections.py",
    ),
    "plan": ("mdl/downloader/plan.py", "tests/unit/downloader/test_plan.py"),
    "select": (
        "mdl/archive/select.py",
        "tests/unit/ops/test_pack.py tests/cli/test_pack.py tests/cli/test_pack_paths.py",
    ),
    "choice": ("mdl/runs/choice.py", "tests/unit/runs/test_choice.py tests/unit/runs/test_several_runs.py"),
}
"""A module, and the tests that must notice what is changed in it."""
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
WORDS = (
    *("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode importlib"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
SECONDS = 300
"""A mutant whose tests take longer goes round in circles, which is noticed too."""


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of an expression."""
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[at] = COMPARISONS[type(operator)]()
            yield changed
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        changed = copy.deepcopy(node)
        changed.op = ARITHMETIC[type(node.op)]()
        yield changed
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)


class Mutator(ast.NodeTransformer):
    """Replaces the change of this number, counted in the order of the source; a type or a text is never changed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen = 0
        self.what = ""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)  # type: ignore[assignment]
            return node
        if isinstance(node, ast.arg):
            return node
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        for changed in changes(node):
            if self.seen == self.number:
                self.seen += 1
                self.what = f"{node.lineno}: {ast.unparse(node)}  ->  {ast.unparse(changed)}"  # type: ignore[attr-defined]
                return ast.copy_location(changed, node)
            self.seen += 1
        return self.generic_visit(node)


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree in the place of its source."""

    def __init__(self, name: str, file: Path, tree: ast.Module) -> None:
        self.name = name
        self.file = file
        self.tree = tree

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.file), "exec"), module.__dict__)


def is_killed(file: Path, tree: ast.Module, tests: list[str]) -> bool:
    """Whether a test fails in a child in which the module is this tree."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            name = str(file.with_suffix("")).replace("/", ".")
            sys.meta_path.insert(0, Mutated(name, ROOT / file, tree))
            code = int(pytest.main([*WORDS, *tests]))
        os._exit(code)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status != 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return True


def try_room(room: str, most: int) -> tuple[int, list[str]]:
    """Count the mutants of a room that were killed, and describe the others."""
    module, words = ROOMS[room]
    file, tests = Path(module), words.split()
    source = (ROOT / file).read_text("utf-8")
    if is_killed(file, ast.parse(source), tests):
        raise SystemExit(f"{room}: its tests fail as it is")
    counter = Mutator(-1)
    counter.visit(ast.parse(source))
    step = max(1, -(-counter.seen // most)) if most else 1
    killed, survivors = 0, []
    for number in range(0, counter.seen, step):
        mutator = Mutator(number)
        tree = ast.fix_missing_locations(mutator.visit(ast.parse(source)))
        assert isinstance(tree, ast.Module)
        if is_killed(file, tree, tests):
            killed += 1
        else:
            survivors.append(f"{module}:{mutator.what}")
    return killed, survivors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rooms", nargs="*", default=list(ROOMS))
    parser.add_argument("--most", type=int, default=40)
    words = parser.parse_args()
    os.chdir(ROOT)
    sys.dont_write_bytecode = False
    for name in ("botocore.session", "httpx", "hypothesis", "jsonschema_rs", "trustme"):
        importlib.import_module(name)  # here once, and not in every child
    for room in words.rooms:
        killed, survivors = try_room(room, words.most)
        print(f"{room}: {killed} killed, {len(survivors)} survived", *survivors, sep="\n  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
