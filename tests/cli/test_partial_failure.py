"""Several files of which one is not to be had, as the plan already finds: the others come, and each failure is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.catalogs import entry_of
from support.data import DATA, SMALL, sha256
from support.descriptors import few_descriptors
from support.faults import answers, honest, routes
from support.faulty_server import FaultyServer
from support.loopback_hub import LoopbackHub, Repo
from support.networks import network_of
from support.shell import Inside, Run, Shell, done, machine

from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.resolver import Resolver
from mdl.errors import NotFound
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.paths import RelPath
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint

GONE = answers(404, body=b"moved to the moon")
SHUT = answers(403, body=b"members only")
PATHS = {
    "/d/a.bin": honest(SMALL),
    "/d/b.bin": honest(DATA),
    "/d/gone.bin": GONE,
    "/d/shut.bin": SHUT,
    "/e/gone.bin": GONE,
}
HANDLER = routes(PATHS)


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    """Its catalog has a model of four files of which only the URLs are known; two of them are not to be had."""
    files = "".join(
        f'[[models.m.files]]\npath = "{name}"\nurl = "{server.url}/d/{name}"\n'
        for name in ("a.bin", "gone.bin", "b.bin", "shut.bin")
    )
    return machine(tmp_path / "home", f"schema = 1\n[models.m]\n{files}")


def here(shell: Shell) -> dict[str, str]:
    """The digests of the files that arrived, by their names."""
    files = [path for path in shell.models.rglob("*.bin") if ".mdl" not in path.parts]
    return {path.name: sha256(path.read_bytes()) for path in files}


SCENES = {
    "URLs of one folder": ("get {url}/d/a.bin {url}/d/gone.bin {url}/d/b.bin", 3, {"a.bin", "b.bin"}, {"gone.bin"}),
    "URLs of several folders": ("get {url}/e/gone.bin {url}/d/b.bin", 3, {"b.bin"}, {"gone.bin"}),
    "a model, for two reasons": ("get m", 10, {"a.bin", "b.bin"}, {"gone.bin", "shut.bin"}),
    "a model, for one reason": ("get m --exclude shut.bin", 3, {"a.bin", "b.bin"}, {"gone.bin"}),
    "none of it wanted": ("get m --include ?.bin", 0, {"a.bin", "b.bin"}, set[str]()),
    "nothing to be had": ("get {url}/d/gone.bin {url}/d/shut.bin", 10, set[str](), {"gone.bin", "shut.bin"}),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_the_others_are_fetched(
    shell: Shell, server: FaultyServer, run: Run, scene: tuple[str, int, set[str], set[str]]
) -> None:
    """What can be had arrives; each other file is in the report with the server's own words, and was asked for once, or
    once more if access was denied. The exit code is that of the reason, or 10 for several. A second run keeps what came
    and says the same."""
    words, code, arrived, failed = scene
    document = run(f"{words.format(url=server.url)} --json", code).document
    rows = {row["path"]: row for model in document["models"] for row in model["files"]}
    assert {path for path, row in rows.items() if row["action"] == "fetched"} == arrived
    assert {path for path, row in rows.items() if row["action"] == "failed"} == failed
    reasons = {"gone.bin": ("NOTFOUND", "moved to the moon"), "shut.bin": ("AUTH", "members only")}
    for path in failed:
        error, (kind, said) = rows[path]["error"], reasons[path]
        assert (error["code"], said in error["message"], rows[path]["url"]) == (
            kind,
            True,
            error_url(server, rows, path),
        )
        asked = sum(request.path.endswith(path) for request in server.requests)
        assert asked in ((1, 2) if path == "shut.bin" else (1,))
    right = {"a.bin": sha256(SMALL), "b.bin": sha256(DATA)}
    assert here(shell) == {name: right[name] for name in arrived}
    again = run(words.format(url=server.url), code)
    assert all(path in again.err for path in failed)
    items = [
        row["url"] if "{url}" in words else f"{model['name']}/{row['path']}"
        for model in document["models"]
        for row in model["files"]
        if row["error"]
    ]
    assert [f"mdl: {item}: " in again.err for item in items] == [True] * len(failed)
    assert not any(path in line for path in arrived for line in again.err.splitlines() if line.startswith("mdl: "))


def error_url(server: FaultyServer, rows: dict[str, dict[str, str]], path: str) -> str:
    """The URL of a failed file in the report is one of the server's, without a query."""
    url = rows[path]["url"]
    assert url.startswith(server.url)
    assert url.endswith(path)
    return url


def test_status_and_plan(shell: Shell, run: Run) -> None:
    """The dry run tells the same failures and what would come, and fetches nothing; the model is then partial."""
    planned = run("get m -n --json", 10).document
    [model] = planned["models"]
    actions = {row["path"]: row["action"] for row in model["files"]}
    assert actions == {"a.bin": "planned", "b.bin": "planned", "gone.bin": "failed", "shut.bin": "failed"}
    table = run("get m -n", 10)
    assert [line.split()[0] for line in table.out.splitlines() if "gone.bin" in line] == ["refuse"]
    assert ("moved to the moon" in table.err, "members only" in table.err, here(shell)) == (True, True, {})
    [model] = run("get m --json", 10).document["models"]
    assert model["status"] == "partial"
    ran = run("path m", 3)
    assert (ran.out, "m: only partly on this disk" in ran.err) == ("", True)
    run("get m --include ?.bin")
    assert run("path m").out == f"{shell.models / 'm'}\n"


def test_events_and_lines(shell: Shell, run: Run) -> None:
    """As JSON lines every failed file is one object with its error, and the last one says how all ended."""
    events = run("get m --progress json", 10).events
    failed = {event["file"]: event["error"]["code"] for event in events if event["status"] == "file-failed"}
    assert failed == {"gone.bin": "NOTFOUND", "shut.bin": "AUTH"}
    assert (events[-1]["event"], sum(event["status"] == "file-finished" for event in events)) == ("failed", 2)


def test_a_lock_is_of_the_whole_model(shell: Shell, run: Run) -> None:
    """A model of which a file cannot be resolved is not locked; it is not locked in part."""
    assert "moved to the moon" in run("lock", 3).err
    lock = shell.home / "mdl.lock"
    assert not lock.exists() or "a.bin" not in lock.read_text()


def test_a_file_that_nobody_wants_fails_nothing(tmp_path: Path, server: FaultyServer) -> None:
    """A file that is left out cannot make its model fail, also if the whole model is asked for at once."""
    files = tuple(CatalogFile(RelPath.parse(name), f"{server.url}/d/{name}") for name in ("a.bin", "gone.bin"))
    with HttpClient(AllowList.of(["127.0.0.1"])) as http:
        context = SourceContext(Endpoint("http://127.0.0.1:9"), tmp_path, network_of(http))
        with pytest.raises(NotFound):
            Resolver(context).resolve(Model("m", files=files))
        [found] = Resolver(context, exclude=("gone.bin",)).resolve(Model("m", files=files)).files
    assert found.path.text == "a.bin"


def test_repositories_and_their_files(tmp_path: Path, mdl: Inside) -> None:
    """Of two repositories of a model of which one does not exist, the other one comes; so does a file beside one that
    its repository does not have."""
    with LoopbackHub([Repo("org/a", {"a.bin": SMALL, "c.json": b"{}"})]) as hub:
        catalog = """schema = 1
[models.two]
source = ["hf:org/a", "hf:org/none"]
[[models.one.files]]
path = "a.bin"
url = "hf:org/a/a.bin"
[[models.one.files]]
path = "none.bin"
url = "hf:org/a/none.bin"
"""
        shell = machine(tmp_path / "home", catalog, hub.url)
        two, one = (mdl(shell, "get", name, "--json") for name in ("two", "one"))
        bare = mdl(shell, "get", "hf:org/a/c.json", "hf:org/a/none.bin")
    [model] = two.document["models"]
    assert (two.code, model["status"], {row["action"] for row in model["files"]}) == (3, "partial", {"fetched"})
    assert "org/none" in two.document["error"]["item"] + two.document["error"]["message"]
    rows = {row["path"]: row["action"] for row in one.document["models"][0]["files"]}
    assert (one.code, rows) == (3, {"a.bin": "linked", "none.bin": "failed"})
    assert (bare.code, "none.bin" in bare.err, (shell.models / "org--a" / "c.json").exists()) == (3, True, True)


@pytest.mark.fault(29)
@pytest.mark.parametrize("more", [1, -1])
def test_a_stated_size_is_a_promise(run: Run, shell: Shell, server: FaultyServer, more: int) -> None:
    """A catalog's size is all that tells a file without a digest: another one is refused, and nothing is published."""
    text = f'path = "a.bin"\nurl = "{server.url}/d/a.bin"\nsize = {len(SMALL) + more}\n'
    (shell.home / "catalog.toml").write_text(f"schema = 1\n[models.m]\n[[models.m.files]]\n{text}")
    assert f"announces {len(SMALL)} bytes, expected {len(SMALL) + more}" in run("get m", 6).err
    assert here(shell) == {}


def test_a_file_where_the_models_folder_should_be(tmp_path: Path, mdl: Inside) -> None:
    """It is named once, before anything is planned, by every command that works there: also a verification, which
    would find nothing, and say that all is well."""
    with LoopbackHub([Repo("org/a", {"a.bin": SMALL, "b.json": b"[]", "c.json": b"{}"})]) as hub:
        shell = machine(tmp_path / "home", endpoint=hub.url)
        file = shell.home / "file"
        file.write_text("")
        for words in (("get", "org/a", "--to"), ("get", "org/a", "--into"), ("verify", "--to"), ("list", "--to")):
            ran = mdl(shell, *words, str(file))
            hint = "a file is in the way: name a folder, not a file"
            assert (ran.code, ran.out, ran.err) == (7, "", f"mdl: {file}: Not a directory\n  hint: {hint}\n"), words
        below = mdl(shell, "get", "org/a", "--into", f"{file}/m")
    assert (below.code, below.err.splitlines()[0]) == (7, f"mdl: {file}: Not a directory")


def test_more_models_than_descriptors(tmp_path: Path, server: FaultyServer, mdl: Inside) -> None:
    """Each model is locked, however many they are: the limit of open files is raised as far as they need."""
    server.handler = honest(b"whole")
    names = [f"m{number}" for number in range(90)]
    entries = [entry_of(name, f"{server.url}/{name}", b"whole") for name in names]
    shell = machine(tmp_path, "schema = 1\n" + "".join(entries))
    with few_descriptors(160):
        done(mdl(shell, "get", *names, "--connections", "2"))
    assert len(list(shell.models.glob("m*/f.bin"))) == 90
