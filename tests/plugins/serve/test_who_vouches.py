"""Who vouches for a file: its hub, or only the folder or bundle that brought it; and which hub, of two that have a
repository of one name. ``serve``, ``list``, ``verify`` and ``get`` decide by that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.hf_cache import cache_of
from support.loopback_hub import LoopbackHub, Repo
from support.serving import TOKEN, WITH_TOKEN, client_of, served
from support.shell import Inside, Shell, done, machine, with_environ

from mdl.downloader.receipts import Receipts
from mdl.plugins.serve import repositories

COMMIT = "c" * 40
RIGHT, THEIRS = b'{"right": 1}', b'{"wrong": 1}'
OTHER_FILE = b"only in theirs"
MODEL = Repo("org/model", {"config.json": RIGHT, "w.bin": b"w" * 50}, commit=COMMIT)
FORGED = Repo("org/model", {"config.json": THEIRS, "extra.bin": OTHER_FILE}, commit=COMMIT)
ENTRY = 'schema = 1\n[models.{name}]\nsource = "hf:org/model@{commit}"\n'
PATHS = ("/org/model/resolve/{at}/{path}", "/api/models/org/model/tree/{at}", "/api/models/org/model/revision/{at}")


@pytest.fixture
def owner() -> Iterator[httpx.Client]:
    """The client of somebody who has the server's token."""
    with httpx.Client(headers=WITH_TOKEN, trust_env=False) as client:
        yield client


@pytest.fixture
def their_bundle(tmp_path: Path, mdl: Inside) -> Path:
    """A bundle of somebody whose hub has other bytes under the name and commit of a well-known repository."""
    with LoopbackHub([FORGED]) as theirs:
        machine_of_theirs = machine(tmp_path / "theirs", ENTRY.format(name="other", commit=COMMIT), theirs.url)
        done(mdl(machine_of_theirs, "get", "other"))
        bundle = tmp_path / "theirs.tar"
        done(mdl(machine_of_theirs, "bundle", "export", "other", "-o", str(bundle)))
    return bundle


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


def status_of(shell: Shell, name: str, mdl: Inside) -> str:
    """What ``list`` says of a model."""
    rows = done(mdl(shell, "list", "--json")).document["models"]
    return next(row["status"] for row in rows if row["name"] == name)


@pytest.mark.parametrize("order", ["hub first", "bundle first", "bundle after a look"])
@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
def test_a_bundle_never_stands_for_the_hub(
    order: str, layout: str, their_bundle: Path, tmp_path: Path, owner: httpx.Client, mdl: Inside
) -> None:
    """Whatever came first, the server has the hub's file, with and without ``gated``. The bundle's file stays usable
    under its own entry and is unverified."""
    with LoopbackHub([MODEL]) as hub:
        shell = machine(tmp_path / "home", endpoint=hub.url)
        words = ("bundle", "import", str(their_bundle))
        if order == "bundle first":
            done(mdl(shell, *words))
        if order == "bundle after a look":
            done(mdl(shell, "get", "-n", "hf:org/model"))
            done(mdl(shell, *words))
        done(mdl(shell, "get", "hf:org/model", "--layout", layout))
        if order == "hub first":
            done(mdl(shell, *words))
    assert status_of(shell, "other", mdl) == "unverified"
    assert (shell.models / "other" / "config.json").read_bytes() == THEIRS
    assert done(mdl(shell, "verify", "other", "--json")).document["models"][0]["files"][0]["status"] == "unverified"
    for is_gated in (False, True):
        with served(shell, gated=is_gated, token=TOKEN) as server:
            for revision in ("main", COMMIT):
                assert owner.get(f"{server.url}/org/model/resolve/{revision}/config.json").content == RIGHT
                assert owner.get(f"{server.url}/org/model/resolve/{revision}/extra.bin").status_code == 404
                tree = owner.get(f"{server.url}/api/models/org/model/tree/{revision}").json()
                assert [item["path"] for item in tree] == ["config.json", "w.bin"]


@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
def test_a_bundle_takes_no_place_of_the_hub(layout: str, tmp_path: Path, http: httpx.Client, mdl: Inside) -> None:
    """A bundle whose model is called as what came from the hub, or which lies in the same cache, replaces nothing of it
    (7, nothing written), unless ``--replace`` says so."""
    name = "org--model" if layout == "plain" else "other"
    with LoopbackHub([MODEL]) as hub, LoopbackHub([FORGED]) as theirs:
        maker = machine(tmp_path / "theirs", ENTRY.format(name=name, commit=COMMIT), theirs.url)
        done(mdl(maker, "get", name))
        done(mdl(maker, "bundle", "export", name, "-o", "b.tar"))
        shell = machine(tmp_path / "home", endpoint=hub.url)
        done(mdl(shell, "get", "hf:org/model", "--layout", layout))
        words = ("bundle", "import", str(maker.home / "b.tar"), "--layout", layout)
        assert mdl(shell, *words).code == 7
        with served(shell) as server:
            assert http.get(f"{server.url}/org/model/resolve/{COMMIT}/config.json").content == RIGHT
        assert "bundled" not in ((shell.home / "mdl.lock").read_text() if (shell.home / "mdl.lock").exists() else "")
        done(mdl(shell, *words, "--replace"))
        cached = cache_of(shell) / "models--org--model" / "snapshots" / COMMIT
        place = (shell.models / name if layout == "plain" else cached) / "config.json"
        assert place.read_bytes() == THEIRS
        if layout == "hf-cache":
            done(mdl(shell, "get", "hf:org/model", "--layout", layout))
            assert place.read_bytes() == RIGHT


def test_a_bundle_alone(
    their_bundle: Path, tmp_path: Path, http: httpx.Client, owner: httpx.Client, mdl: Inside
) -> None:
    """If nothing but the bundle has it, it is not offered, and a listing of the hub changes nothing; with ``gated`` it
    is, as long as nothing of the hub is in its place."""
    with LoopbackHub([MODEL]) as hub:
        shell = machine(tmp_path / "home", endpoint=hub.url)
        done(mdl(shell, "bundle", "import", str(their_bundle)))
        for look in ((), ("get", "-n", "hf:org/model")):
            if look:
                done(mdl(shell, *look))
            with served(shell) as server:
                for path in PATHS:
                    asked = path.format(at=COMMIT, path="config.json")
                    assert http.get(server.url + asked).status_code == 403
            with served(shell, gated=True, token=TOKEN) as server:
                assert owner.get(f"{server.url}/org/model/resolve/{COMMIT}/config.json").content == THEIRS


def test_what_the_user_knows_raises_a_bundle(tmp_path: Path, mdl: Inside) -> None:
    """What the user's own lock, or a kept listing of the hub, says as well is not the bundle's word alone. Online 'mdl
    lock' asks the hub, at the commit of the bundle, and 'mdl get' then believes it; a wrong one is told."""
    entry, edited = ENTRY.format(name="m", commit=COMMIT), replace(MODEL, files={**MODEL.files, "config.json": THEIRS})
    with LoopbackHub([MODEL]) as hub, LoopbackHub([edited]) as theirs:
        first = machine(tmp_path / "first", entry, hub.url)
        done(mdl(first, "get", "m"))
        done(mdl(first, "bundle", "export", "m", "-o", "m.tar"))
        bundle = str(first.home / "m.tar")
        looked = machine(tmp_path / "looked", endpoint=hub.url)
        done(mdl(looked, "get", "-n", f"hf:org/model@{COMMIT}"))
        locked = machine(tmp_path / "locked", entry, hub.url)
        done(mdl(locked, "lock"))
        for shell in (looked, locked):
            rows = done(mdl(shell, "bundle", "import", bundle, "--json")).document["models"][0]["files"]
            assert {row["verified"] for row in rows} == {"git-sha1"}
            assert status_of(shell, "m", mdl) == "present"
        unknown = machine(tmp_path / "unknown", endpoint=hub.url)
        ran = done(mdl(unknown, "bundle", "import", bundle))
        assert "unverified: m/config.json and 1 more: only the bundle says" in ran.err
        assert status_of(unknown, "m", mdl) == "unverified"
        assert (unknown.home / "mdl.lock").read_text().count("bundled = true") == 2
        done(mdl(unknown, "lock", "m"))
        assert "bundled" not in (unknown.home / "mdl.lock").read_text()
        assert status_of(unknown, "m", mdl) == "present"
        other = machine(tmp_path / "other", endpoint=theirs.url)
        done(mdl(other, "bundle", "import", bundle))
        assert "m: config.json has other bytes" in done(mdl(other, "lock", "m")).err
        assert status_of(other, "m", mdl) == "partial"


def test_the_name_of_a_repository_is_of_its_hub(
    tmp_path: Path, http: httpx.Client, owner: httpx.Client, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's hub says nothing of who may have its model. That a public hub has a public repository of that name
    changes nothing, whatever is looked at there; with ``gated`` its listing names nothing of the company's files."""
    monkeypatch.setattr(repositories, "LOOK_AGAIN", 0.0)
    corp = Repo("acme/model", {"config.json": b"secret", "a.bin": b"a"}, commit=COMMIT)
    same = Repo("acme/model", {"config.json": b"secret", "public.txt": b"p", "more.txt": b"m"}, commit=COMMIT)
    later = Repo("acme/model", {"config.json": b"secret", "last.txt": b"p"})
    with LoopbackHub([corp]) as company, LoopbackHub([same, later]) as public:
        shell = machine(tmp_path / "home", endpoint=company.url)
        inside = with_environ(shell, HF_TOKEN="hf_" + "x" * 20)
        outside = machine(tmp_path / "home", endpoint=public.url)
        done(mdl(inside, "get", f"hf:acme/model@{COMMIT}"))
        for look in (("get", "-n", "hf:acme/model"), ("get", "-n", f"hf:acme/model@{COMMIT}")):
            done(mdl(outside, *look))
            for shell_of in (inside, outside):
                with served(shell_of) as server:
                    for path in PATHS:
                        refused = http.get(server.url + path.format(at=COMMIT, path="config.json"))
                        assert (refused.status_code, b"secret" in refused.content) == (403, False)
        with served(outside, gated=True, token=TOKEN) as server:
            tree = owner.get(f"{server.url}/api/models/acme/model/tree/{COMMIT}")
            assert [item["path"] for item in tree.json()] == ["a.bin", "config.json"]
            assert "x-hf-warning" not in tree.headers
            assert owner.get(f"{server.url}/api/models/acme/model/tree/{later.commit}").status_code == 404
        rows = done(mdl(outside, "list", "--local", "--json")).document["models"]
        assert [(row["files"], row["files_present"], row["status"]) for row in rows] == [(2, 2, "present")]
        done(mdl(inside, "get", "hf:acme/model"))
        assert done(mdl(inside, "outdated", "--json")).document["models"][0]["state"] == "current"
        for command in (("outdated",), ("update", "acme--model")):
            wrong_hub = mdl(outside, *command)
            assert (wrong_hub.code, f"HF_ENDPOINT={company.url}" in wrong_hub.err) == (2, True), (
                wrong_hub.out + wrong_hub.err
            )
        assert (inside.models / "acme--model" / "a.bin").read_bytes() == b"a"


@pytest.mark.parametrize("newer", ["company", "public"])
def test_two_public_hubs(newer: str, tmp_path: Path, http: httpx.Client, mdl: Inside) -> None:
    """Two hubs have public repositories of one name, and files of both are here: nothing of one is ever in a listing of
    the other, and the hub in use is the one that is meant where both could be."""
    one = Repo("org/model", {"config.json": b"one", "one.bin": b"1"})
    two = Repo("org/model", {"config.json": b"two", "two.bin": b"2"})
    with LoopbackHub([one]) as company, LoopbackHub([two]) as public:
        for url in (company.url, public.url) if newer == "public" else (public.url, company.url):
            shell = machine(tmp_path / "home", endpoint=url)
            done(mdl(shell, "get", "hf:org/model", "--to", str(tmp_path / "home" / "models" / url[-5:])))
        for url, own in ((company.url, one), (public.url, two)):
            here = machine(tmp_path / "home", endpoint=url)
            stores = [client_of(here, home=here.models / place.url[-5:]).stores.open() for place in (company, public)]
            table = repositories.make_table(stores, url, gated=False)
            first, second = table["model", "org/model"]
            assert (first.endpoint, set(first.head.files)) == (url, set(own.files))
            assert {first.endpoint, second.endpoint} == {company.url, public.url}
            assert set(first.revisions) == {own.commit}


def folder_of_theirs(place: Path, data: bytes, commit: str = COMMIT) -> Path:
    """A folder as ``hf download --local-dir`` leaves it, with an account of itself that fits its own bytes."""
    notes = place / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (place / "config.json").write_bytes(data)
    (notes / "config.json.metadata").write_text(f"{commit}\n{git_sha1(data)}\n1700000000.0\n")
    return place


def test_a_folder_does_not_vouch_for_itself(tmp_path: Path, owner: httpx.Client, mdl: Inside) -> None:
    """What a folder says of its own files is unverified everywhere; the hub, once it is asked, replaces a wrong one."""
    only = Repo("org/model", {"config.json": RIGHT}, commit=COMMIT)
    with LoopbackHub([only]) as hub:
        shell = machine(tmp_path / "home", ENTRY.format(name="m", commit=COMMIT), hub.url)
        theirs = folder_of_theirs(tmp_path / "theirs", THEIRS)
        [row] = done(mdl(shell, "import", str(theirs), "--json")).document["files"]
        assert (row["model"], row["verified"], row["of_catalog"]) == ("m", "none", True)
        [again] = done(mdl(shell, "import", str(theirs), "--json")).document["files"]
        assert (again["verified"], again["action"]) == ("none", "kept")
        assert status_of(shell, "m", mdl) == "unverified"
        verified = done(mdl(shell, "verify", "m", "--json")).document["models"][0]["files"]
        assert [one["status"] for one in verified] == ["unverified"]
        assert mdl(shell, "verify", "m", "--strict").code == 6
        assert mdl(shell, "get", "--offline", "m").code == 8
        for is_gated in (False, True):
            with served(shell, gated=is_gated, token=TOKEN) as server:
                assert owner.get(f"{server.url}/org/model/resolve/{COMMIT}/config.json").status_code in (403, 404)
        done(mdl(shell, "get", "m"))
        assert (shell.models / "m" / "config.json").read_bytes() == RIGHT
        assert status_of(shell, "m", mdl) == "present"


def test_the_hub_raises_what_a_folder_brought(tmp_path: Path, mdl: Inside) -> None:
    """If the folder was right, an online get says so and fetches nothing; then the receipt is the hub's."""
    only = Repo("org/model", {"config.json": RIGHT}, commit=COMMIT)
    with LoopbackHub([only]) as hub:
        shell = machine(tmp_path / "home", ENTRY.format(name="m", commit=COMMIT), hub.url)
        done(mdl(shell, "import", str(folder_of_theirs(tmp_path / "right", RIGHT))))
        sent = hub.sent
        done(mdl(shell, "get", "m"))
        assert hub.sent == sent
    [receipt] = Receipts(shell.models / ".mdl" / "receipts").all()
    assert receipt.hub is not None
    assert (receipt.vouched_by, receipt.verified, receipt.hub.endpoint) == ("hub", "git-sha1", hub.url)


@pytest.mark.parametrize("known", ["listing", "lock"])
def test_what_is_known_of_the_commit_decides(known: str, tmp_path: Path, mdl: Inside) -> None:
    """A kept listing of this hub and commit, or the lock, has a digest: the same verifies the file by it, another says
    that the file is not the model's (6, both digests named). A listing of another hub says nothing."""
    only = Repo("org/model", {"config.json": RIGHT}, commit=COMMIT)
    with LoopbackHub([only]) as hub:
        shell = machine(tmp_path / "home", ENTRY.format(name="m", commit=COMMIT), hub.url)
        done(mdl(shell, *(("get", "-n", "m") if known == "listing" else ("lock",))))
        wrong = mdl(shell, "import", str(folder_of_theirs(tmp_path / "wrong", THEIRS)))
        assert (wrong.code, git_sha1(THEIRS) in wrong.err, git_sha1(RIGHT) in wrong.err) == (6, True, True)
        [row] = done(mdl(shell, "import", str(folder_of_theirs(tmp_path / "right", RIGHT)), "--json")).document["files"]
        assert (row["model"], row["verified"]) == ("m", "git-sha1")
        assert status_of(shell, "m", mdl) == "present"


def test_an_old_receipt_is_served_to_nobody(
    tmp_path: Path, http: httpx.Client, owner: httpx.Client, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receipt without a hub, as earlier versions wrote it, offers nothing without ``gated``; a get asks the hub,
    which makes it whole again."""
    with LoopbackHub([MODEL]) as hub:
        shell = machine(tmp_path / "home", endpoint=hub.url)
        done(mdl(shell, "get", "hf:org/model"))
        receipts = Receipts(shell.models / ".mdl" / "receipts")
        for receipt in receipts.all():
            assert receipt.hub is not None
            nameless = replace(receipt.hub, endpoint="")
            receipts.put(replace(receipt, hub=nameless, access="unknown", vouched_by="folder"))
        address = "{}/org/model/resolve/main/config.json"
        with served(shell) as server:
            assert http.get(address.format(server.url)).status_code == 403
        with served(shell, gated=True, token=TOKEN) as server:
            assert owner.get(address.format(server.url)).content == RIGHT
        sent = hub.sent
        done(mdl(shell, "get", "hf:org/model"))
        assert hub.sent == sent
        with served(shell) as server:
            assert http.get(address.format(server.url)).content == RIGHT
