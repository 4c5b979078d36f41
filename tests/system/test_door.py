"""The door: plug-ins are found by their entry points, mdl works without its own, and others can be added."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.faulty_server import FaultyServer
from support.long import only_long
from support.shell import Inside, machine

pytestmark = pytest.mark.plugins
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "support" / "shelf_plugin"
OWN = ("bundle", "fleet", "mirror", "render", "serve")
WEIGHTS = bytes(range(256)) * 100


def ran(home: Path, *words: str, path: Path) -> subprocess.CompletedProcess[str]:
    """mdl in a process that finds modules in ``path`` first."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "mdl", *words]
    return subprocess.run(command, cwd=home, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the project without its plug-ins and their tests."""
    left_out = shutil.ignore_patterns("plugins", ".git", ".venv*", "__pycache__", ".*_cache", "site")
    copy = tmp_path / "bare"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    assert not (copy / "mdl" / "plugins").exists()
    return copy


@pytest.fixture
def without_entries(bare: Path) -> Path:
    """The same, installed: its metadata names no plug-in."""
    facts = importlib.metadata.distribution("mdl").read_text("METADATA")
    assert facts is not None
    place = bare / "mdl-0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(facts)
    return bare


def test_mdl_without_its_plugins(bare: Path, tmp_path: Path) -> None:
    """The rest of mdl is whole: it helps, runs, and says which plug-in is missing."""
    assert not [name for name in OWN if f"  {name} " in ran(tmp_path, "--help", path=bare).stdout]
    assert ran(tmp_path, "list", "--json", path=bare).returncode == 0
    for name in OWN:
        refused = ran(tmp_path, name, path=bare)
        assert refused.returncode == 2
        assert f"the plug-in {name} cannot be used: No module named" in refused.stderr


@only_long("runs the suite again")
@pytest.mark.timeout(3000)
def test_the_suite_without_the_plugins(without_entries: Path) -> None:
    """The tests of the core pass without them."""
    flags = ["-q", "-n", "2", "-p", "no:cacheprovider", "-m", "not plugins"]
    command = [sys.executable, "-m", "pytest", *flags, "tests"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MDL"))}
    environ["PYTHONPATH"] = str(without_entries)
    done = subprocess.run(
        command, cwd=without_entries, env=environ, capture_output=True, text=True, check=False, timeout=3000
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder in which the example is installed, as pip would do it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "packages"
    shutil.copytree(EXAMPLE / "mdl_shelf", folder / "mdl_shelf")
    facts = folder / f"mdl_shelf-{project['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    [[group, entries]] = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def shelf() -> Iterator[str]:
    """A shelf with one file."""
    index = json.dumps({"weights.bin": hashlib.sha256(WEIGHTS).hexdigest()}).encode()
    pages = {"/tiny/index.json": faults.honest(index), "/tiny/weights.bin": faults.honest(WEIGHTS)}
    with FaultyServer(faults.routes(pages)) as server:
        yield f"shelf://{server.url.removeprefix('http://')}/tiny"


def test_a_plugin_of_a_package_of_its_own(example: Path, shelf: str, tmp_path: Path) -> None:
    """It adds a command, also to the help, and a source that get and the catalog know."""
    home = tmp_path / "home"
    home.mkdir()
    assert "List what is on a shelf" in ran(home, "--help", path=example).stdout
    listed = ran(home, "shelf", shelf, path=example)
    assert (listed.returncode, listed.stdout) == (0, "weights.bin\n"), listed.stderr
    got = ran(home, "get", shelf, "--to", "models", path=example)
    assert got.returncode == 0, got.stderr
    assert Path(got.stdout.strip(), "weights.bin").read_bytes() == WEIGHTS
    (home / "catalog.toml").write_text(f'schema = 1\n[models.tiny]\nsource = "{shelf}"\n')
    assert ran(home, "verify", "tiny", "--to", "models", path=example).returncode == 0
    assert ran(home, "lock", path=example).returncode == 0
    assert shelf in (home / "mdl.lock").read_text()


@pytest.mark.parametrize("plugin", ["bundle", "fleet", "mirror", "render"])
def test_a_group_without_its_command(mdl: Inside, tmp_path: Path, plugin: str) -> None:
    """A script that forgot a word does not go on: 2, and the hint has the words that there are."""
    run = mdl(machine(tmp_path / "home"), plugin, "--json")
    error = run.document["error"]
    assert (run.code, error["item"]) == (2, f"mdl {plugin}")
    assert error["hint"].startswith(f"mdl {plugin} ")


def test_a_broken_plugin(example: Path, tmp_path: Path) -> None:
    """One that cannot be imported takes nothing else away, and doctor says why."""
    (example / "mdl_shelf" / "__init__.py").write_text("import no_such_module\n")
    assert ran(tmp_path, "--help", path=example).returncode == 0
    refused = ran(tmp_path, "shelf", path=example)
    assert (refused.returncode, "the plug-in shelf cannot be used: No module named" in refused.stderr) == (2, True)
    assert "No module named 'no_such_module'" in ran(tmp_path, "doctor", "--offline", path=example).stdout
