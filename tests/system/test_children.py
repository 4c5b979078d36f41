"""Children of mdl that are Python: nothing of the current folder, of the user's packages, of a variable is imported."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cases import each
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.shell import NOBODY, machine

import mdl

PACKAGE = Path(mdl.__file__).parent
ROOT = PACKAGE.parent
LIBRARIES = ("typer", "click", "rich", "httpx", "httpcore", "h11", "platformdirs", "certifi", "ray", "starlette")


def planted(folder: Path, mark: Path) -> Path:
    """A folder with a module of every name that Python or mdl imports; each leaves a mark."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*sys.stdlib_module_names, *LIBRARIES, "mdl", "sitecustomize", "usercustomize"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r} + '\\n')\n")
    return folder


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("fleet status m --on ray --nodes 1", 2),
        ("get m --detach", 0),
        ("jobs resume --detach", 0),
        ("demo --yes", 0),
    ],
)
def test_nothing_of_the_current_folder_runs(tmp_path: Path, words: str, code: int) -> None:
    """A downloaded folder, a user's own packages and PYTHON variables may have modules of any name: none is run."""
    mark = tmp_path / "MARK"
    shell = machine(tmp_path / "home", 'schema = 1\n[models.m]\nsource = "hf:org/m"\n')
    evil = planted(tmp_path / "evil", mark)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    planted(shell.home / ".local" / "lib" / version / "site-packages", mark)
    variables = {"PYTHONPATH": str(evil), "PYTHONSTARTUP": str(evil / "json.py"), "PYTHONUSERBASE": str(evil)}
    with LoopbackHub([Repo("org/m", {"a.bin": b"a"})]) as hub:
        environ = shell.environ | variables | {"HF_ENDPOINT": hub.url, "MDL_CATALOG": str(shell.home / "catalog.toml")}

        def run(line: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-I", "-m", "mdl", *line.split()]
            return subprocess.run(command, env=environ, cwd=evil, capture_output=True, text=True, check=False)

        assert run("lock").returncode == 0
        if "resume" in words:
            environ["HF_ENDPOINT"] = NOBODY
            assert run("get hf:org/other --max-duration 1s").returncode in (5, 75)
            environ["HF_ENDPOINT"] = hub.url
        ran = run(words)
        assert ran.returncode == code, ran.stdout + ran.stderr
        if "--detach" in words:
            until(lambda: "running" not in run("jobs list --json").stdout)
    assert not mark.exists(), mark.read_text()


def test_a_child_is_the_same_mdl(tmp_path: Path) -> None:
    """A copy of mdl that a variable names, and one that is started by its folder, start themselves and no other mdl."""
    shutil.copytree(PACKAGE, tmp_path / "mdl", ignore=shutil.ignore_patterns("__pycache__"))
    init = tmp_path / "mdl" / "__init__.py"
    init.write_text(re.sub(r'__version__ = "[^"]+"', '__version__ = "9.9.9"', init.read_text()))
    script = (
        "import subprocess; from mdl.disk.process import python_command as of; subprocess.run([*of(), '--version'])"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "mdl 9.9.9 (checkout)\n"


def test_one_function_starts_them() -> None:
    """No module starts Python by itself: ``sys.executable`` is used in one place, and once to tell a user of it."""
    users = set[str]()
    for file in PACKAGE.rglob("*.py"):
        source = file.read_text("utf-8")
        tree = ast.parse(source if _MAY_START_PYTHON.search(source) else "")
        for node in ast.walk(tree):
            is_named = ast.unparse(node) == "sys.executable" if isinstance(node, ast.Attribute) else _imports_it(node)
            is_word = isinstance(node, ast.Constant) and isinstance(node.value, str) and _starts_python(node.value)
            if is_named or is_word:
                users.add(str(file.relative_to(PACKAGE).with_suffix("")))
    assert users == {"disk/process", "extras"}


_MAY_START_PYTHON = re.compile(r"executable|python[0-9.]*['\"]")
"""Only such a module is parsed."""


def _imports_it(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and "executable" in [alias.name for alias in node.names]


def _starts_python(text: str) -> bool:
    return re.fullmatch(r"(.*/)?python[0-9.]*", text) is not None


SCRIPTS = [
    "action.yml",
    "Dockerfile",
    *(str(one.relative_to(ROOT)) for one in (ROOT / ".ci").iterdir() if one.is_file()),
]


@each("name", SCRIPTS)
def test_scripts_start_it_isolated(name: str) -> None:
    """What CI and the action start beside mdl itself does not import from the repository that was checked out."""
    text = (ROOT / name).read_text("utf-8")
    started = re.findall(r"(?<![\w./-])python3?(?: +\S+)?(?= )", text) if not name.endswith(".py") else []
    assert [words for words in started if not words.endswith(" -I") and "," not in words] == []
