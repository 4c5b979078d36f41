"""Names of a repository's files: what this disk can keep is fetched, what it cannot is refused alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import NEVER_KEPT, ODD_NAMES
from support.data import files_below
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, beside, done, machine, with_environ

from mdl.disk.names import NameFolding, name_folding
from mdl.downloader import store as store_module

PLAIN = {"config.json": b"{}", "model.safetensors": b"weights"}
CATALOG = 'schema = 1\n[models.m]\nsource = "hf:org/repo"\n'
ODD = {name: f"content of {name}".encode() for names in ODD_NAMES.values() for name in names}
TWINS = {"README.md": b"large", "readme.md": b"small"}


def hub_of(files: dict[str, bytes]) -> LoopbackHub:
    return LoopbackHub([Repo("org/repo", files, lfs_threshold=0)])


@pytest.fixture
def twins() -> Iterator[LoopbackHub]:
    with hub_of(PLAIN | TWINS) as hub:
        yield hub


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("get", "org/repo"), {*PLAIN, *TWINS}),
        (("get", "org/repo", "--exclude", "readme.md"), {*PLAIN, "README.md"}),
        (("get", "org/repo", "model.safetensors"), {"model.safetensors"}),
        (("get", "org/repo", "readme.md", "README.md"), {*TWINS}),
        (("get", "{hub}/org/repo/resolve/main/readme.md"), {"readme.md"}),
        (("get", "{hub}/org/repo/resolve/main/readme.md", "-o", "x.md"), {"x.md"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_two_names_that_differ_by_case(
    mdl: Inside, tmp_path: Path, twins: LoopbackHub, words: tuple[str, ...], names: set[str]
) -> None:
    """On a disk that tells them apart both are fetched, and neither is in the way of anything else."""
    shell = machine(tmp_path, endpoint=twins.url)
    done(mdl(shell, *(word.format(hub=twins.url) for word in words)))
    found = files_below(shell.models / "org--repo")
    assert found.keys() == names
    assert all(data == (PLAIN | TWINS)[name] for name, data in found.items() if name != "x.md")
    done(mdl(shell, "show", "--remote", "org/repo"))


@pytest.mark.plugins
def test_every_odd_name_through_every_command(mdl: Inside, tmp_path: Path) -> None:
    """What get takes is read back from lock, receipts, bundle and list, and served to another machine as it is."""
    with hub_of(ODD) as hub:
        shell = machine(tmp_path / "one", CATALOG, hub.url)
        for words in (
            "lock",
            "lock --check",
            "get m --locked",
            "get m --frozen",
            "get m --offline",
            "verify m",
            "list",
        ):
            done(mdl(shell, *words.split()))
        assert files_below(shell.models / "m") == ODD
        sums = done(mdl(shell, "export", "m", "--format", "sha256sums")).out
        command = ["sha256sum", "-c", "--quiet", "-"]
        subprocess.run(command, input=sums, text=True, cwd=shell.models, check=True)
        assert sums.count("\n") == len(ODD)
        done(mdl(shell, "bundle", "export", "m", "-o", "m.tar"))
        done(mdl(shell, "rm", "m", "--yes"))
        assert not (shell.models / "m").exists()
        done(mdl(shell, "bundle", "import", "m.tar"))
        assert files_below(shell.models / "m") == ODD
        done(mdl(shell, "verify", "m"))
        done(mdl(with_environ(shell, HF_HUB_CACHE=str(tmp_path / "cache")), "get", "m", "--layout", "hf-cache"))
        [commit] = (tmp_path / "cache" / "models--org--repo" / "snapshots").iterdir()
        assert {str(path.relative_to(commit)) for path in commit.rglob("*") if path.is_file()} == ODD.keys()


@pytest.mark.plugins
def test_odd_names_are_served(mdl: Inside, tmp_path: Path) -> None:
    """Another machine gets every name from 'mdl serve'."""
    with hub_of(ODD) as hub:
        shell = machine(tmp_path / "one", CATALOG, hub.url)
        done(mdl(shell, "get", "m"))
        commit = hub.requests[0].path and Repo("org/repo", ODD, lfs_threshold=0).commit
    with beside(shell, *shell.command("serve", "--port", "0")) as server:
        assert server.stderr
        url = next(word for line in server.stderr for word in line.split() if word.startswith("http://")).rstrip(";")
        other = machine(tmp_path / "two", endpoint=url)
        done(mdl(other, "get", f"org/repo@{commit}"))
    assert files_below(other.models / "org--repo") == ODD


BAD = {name: b"never" for names in NEVER_KEPT.values() for name in names if name and "\ud800" not in name}


@pytest.mark.fault(77, 78)
def test_what_cannot_be_kept_is_refused_alone(mdl: Inside, tmp_path: Path) -> None:
    """The others are fetched, its row says why, and the exit code is 11, again and again; nothing is outside."""
    with hub_of(PLAIN | BAD) as hub:
        shell = machine(tmp_path, CATALOG, hub.url)
        for _ in range(2):
            ran = done(mdl(shell, "get", "m", "--json"), 11)
            [model] = ran.document["models"]
            rows = {row["path"]: row for row in model["files"]}
            assert {name for name, row in rows.items() if row["error"]} == BAD.keys()
            assert {rows[name]["error"]["code"] for name in BAD} == {"UNSAFE"}
            assert all("name" in rows[name]["error"]["message"] for name in BAD)
            assert files_below(shell.models / "m") == PLAIN
        assert {path.name for path in shell.models.iterdir()} == {"m", ".mdl"}
        done(mdl(shell, "get", "m", "-n"), 11)
        done(mdl(shell, "get", "m", "--include", "config.json"))
        for name in ("a\nb", "../a"):
            ran = done(mdl(shell, "get", "m", "--include", name, "--json"), 11)
            assert [row["path"] for row in ran.document["models"][0]["files"]] == [name]
        done(mdl(shell, "lock"))
        assert "left out" in done(mdl(shell, "lock", "--upgrade", "m")).err
        for words in ("get m --locked", "verify m", "get m --offline", "list --local", "outdated m"):
            done(mdl(shell, *words.split()))
        done(
            mdl(with_environ(shell, HF_HUB_CACHE=str(tmp_path / "cache")), "get", "org/repo", "--layout", "hf-cache"),
            11,
        )
        assert (tmp_path / "cache" / "models--org--repo" / "refs" / "main").exists()


def test_another_failure_counts_as_before(mdl: Inside, tmp_path: Path) -> None:
    """Of two reasons the exit code is 10."""
    with hub_of(PLAIN | {"../x": b""}) as hub:
        shell = machine(tmp_path, CATALOG, hub.url)
        (shell.models / "m").mkdir(parents=True)
        (shell.models / "m" / "config.json").write_bytes(b"mine")
        done(mdl(shell, "get", "m"), 10)


@pytest.mark.parametrize("name", ["CON", "a\\\\b", "x.", "~x", "a/.", ".mdl/x"])
def test_catalogs_keep_the_strict_rule(mdl: Inside, tmp_path: Path, name: str) -> None:
    """A path that a catalog writes is to be the same on every system."""
    source = f'[[models.m.files]]\npath = "{name}"\nurl = "https://host.example/f.bin"\n'
    done(mdl(machine(tmp_path, f"schema = 1\n{source}"), "list"), 2)
    source = f'[models.m]\nsource = "hf:org/repo@main/{name}"\n'
    done(mdl(machine(tmp_path, f"schema = 1\n{source}"), "list"), 2)


# --- a disk that folds names -------------------------------------------------------------------------------


FOLDS = {
    "case": (NameFolding(case=True), {"readme.md", "sub/A.json"}),
    "form": (NameFolding(form=True), {"\u00e9.json"}),
    "both": (NameFolding(case=True, form=True), {"readme.md", "sub/A.json", "\u00e9.json"}),
    "nothing": (NameFolding(), set[str]()),
}
ALIKE = TWINS | {"Sub/a.json": b"1", "sub/A.json": b"2", "sub/other": b"3", "e\u0301.json": b"4", "\u00e9.json": b"5"}


@pytest.mark.fault(115)
@pytest.mark.parametrize("kind", FOLDS)
def test_twins_where_the_folder_folds_them(
    mdl: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The second of two names that the folder does not tell apart is refused, and its row names the first."""
    folding, refused = FOLDS[kind]
    monkeypatch.setattr(store_module, "name_folding", lambda folder: folding)
    with hub_of(ALIKE) as hub:
        shell = machine(tmp_path, CATALOG, hub.url)
        ran = done(mdl(shell, "get", "m", "--json"), 11 if refused else 0)
        rows = {row["path"]: row["error"] for row in ran.document["models"][0]["files"]}
        assert {name for name, error in rows.items() if error} == refused
        assert files_below(shell.models / "m").keys() == ALIKE.keys() - refused
        if "readme.md" in refused:
            assert "README.md" in rows["readme.md"]["message"]
        done(mdl(shell, "verify", "m"))
        assert "up to date" in done(mdl(shell, "outdated", "m")).out
        done(mdl(shell, "get", "m", "--exclude", "readme.md", "--exclude", "sub/A.json", "--exclude", "\u00e9.json"))


def test_nothing_is_probed_without_a_twin(mdl: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is asked only if names look alike."""
    monkeypatch.setattr(store_module, "name_folding", lambda folder: pytest.fail(f"{folder} was asked"))
    with hub_of(PLAIN | TWINS) as hub:
        shell = machine(tmp_path, CATALOG, hub.url)
        done(mdl(shell, "get", "m", "--exclude", "readme.md"))


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    """This folder tells names apart; asking it leaves nothing in it, and one that takes no file is believed to."""
    assert name_folding(tmp_path / "not" / "there") == NameFolding()
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o500)
    assert name_folding(tmp_path) == NameFolding()
    tmp_path.chmod(0o700)


def test_a_file_that_is_a_folder_too(mdl: Inside, tmp_path: Path) -> None:
    """Nothing can be below a file: what is, is refused, and names the file."""
    with hub_of(PLAIN | {"a": b"1", "a/b": b"2", "a/c": b"3"}) as hub:
        shell: Shell = machine(tmp_path, CATALOG, hub.url)
        ran = done(mdl(shell, "get", "m", "--json"), 11)
        errors = {row["path"]: row["error"] for row in ran.document["models"][0]["files"] if row["error"]}
        assert errors.keys() == {"a/b", "a/c"}
        assert all(error["message"].startswith("refused: a is a file") for error in errors.values())
        assert files_below(shell.models / "m") == PLAIN | {"a": b"1"}


def test_odd_names_are_imported(mdl: Inside, tmp_path: Path) -> None:
    """What get takes of a repository is adopted from a folder of that repository, too."""
    with hub_of(ODD) as hub:
        shell = machine(tmp_path / "one", endpoint=hub.url)
        done(mdl(shell, "get", "org/repo", "--into", str(tmp_path / "two")))
        shutil.rmtree(tmp_path / "two" / ".mdl")
        done(mdl(shell, "import", str(tmp_path / "two"), "--from", "hf:org/repo", "--copy"))
