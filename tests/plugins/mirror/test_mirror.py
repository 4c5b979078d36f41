"""``mdl mirror``: what the lock holds, in an object store (moto), and back; and the mirrors that a download asks."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.data import MIB, flip, noise, sha256, write_files
from support.faults import answers, cut, first, honest
from support.faults.wire import Answer, Request, reply
from support.faulty_server import FaultyServer
from support.jobs import the_job
from support.loopback_hub import LoopbackHub, Repo
from support.mirrors import (
    ABSENT,
    MirrorStore,
    catalog_text,
    marker_of,
    mirror_machine,
    refused,
    tapped,
    version_of,
)
from support.relay import Meter, Metered, relaying
from support.shell import Inside, Ran, Shell, done, settings, with_environ, write_catalog

from mdl import Client
from mdl.errors import Cancelled, MdlError
from mdl.events import Event, Started
from mdl.plugins import mirror as mirrors
from mdl.plugins.mirror import marker
from mdl.sources import object_store

pytest.importorskip("boto3")
BIG = noise(11 * MIB, seed=7)
ODD = "sub/a b'+ü.json"
FILES = {"model.bin": noise(300_000, seed=8), ODD: b'{"a": 1}', "empty": b""}
PART = 5 * MIB
"""The smallest part that S3 allows: ``BIG`` has three."""


@pytest.fixture
def store(s3_url: str) -> MirrorStore:
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "canary/secret+key"}
    return MirrorStore.at({**keys, "AWS_ENDPOINT_URL_S3": s3_url, "AWS_REGION": "us-east-1"})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marker, "PART", PART)


@pytest.fixture
def shell(tmp_path: Path, store: MirrorStore, ok: Callable[..., Ran]) -> Shell:
    """A machine with the locked model ``one``."""
    shell = mirror_machine(tmp_path / "home", store, {"one": FILES})
    ok(shell, "lock")
    return shell


@pytest.fixture
def large(shell: Shell, ok: Callable[..., Ran]) -> Shell:
    """The same, whose model is one file of three parts."""
    write_files(shell.models / "one", {"big.bin": BIG})
    write_catalog(shell, catalog_text({"one": {"big.bin": BIG}}))
    ok(shell, "lock")
    return shell


@pytest.fixture
def mirror(mdl: Inside, store: MirrorStore, shell: Shell) -> Callable[..., Ran]:
    """``mirror("push", 3, "one", MDL_X="…")``: ``mdl mirror push s3://… one`` must end with 3."""

    def run(verb: str, code: int = 0, *words: str, **environ: str) -> Ran:
        return done(mdl(with_environ(shell, **environ), "mirror", verb, store.url, *words), code)

    return run


@pytest.fixture
def client(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Client]:
    """A client with the machine's settings, in this process."""

    def make(**more: Any) -> Client:
        return Client(catalog=shell.home / "catalog.toml", home=shell.models, **more)

    for name, value in shell.environ.items():
        monkeypatch.setenv(name, value)
    return make


# --- push ------------------------------------------------------------------------------------------------------


def test_what_only_a_bundle_says_is_not_pushed(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """Others take from a mirror what their lock has: a digest that only a bundle names is not spread (8)."""
    lock = shell.home / "mdl.lock"
    lock.write_text(lock.read_text().replace("{ path = ", "{ bundled = true, path = "))
    assert "only a bundle says which bytes are right" in mirror("push", 8).err
    assert store.objects() == set()


@pytest.mark.fault(560)
def test_what_is_pushed_lies_there_to_be_used(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """The folder of the version has exactly the model's files, each with its sha256, and the marker, which tells of
    them; the one line of output is its URL."""
    ran = mirror("push")
    version = version_of(shell)
    assert ran.out == f"{store.url}/one/{version}/\n"
    assert store.objects() == {f"one/{version}/{path}" for path in (*FILES, "complete.json")}
    for path, data in FILES.items():
        key = f"m/one/{version}/{path}"
        assert store.read(key.removeprefix("m/")) == data
        assert store.api.head_object(Bucket=store.bucket, Key=key)["Metadata"] == {"sha256": sha256(data)}
    marker = marker_of(store, "one", version)
    assert (marker["schema"], marker["name"], marker["version"]) == ("mdl.mirror-complete/1", "one", version)
    assert marker["license"] == "mit"
    assert {one["path"]: (one["size"], one["sha256"]) for one in marker["files"]} == {
        path: (len(data), sha256(data)) for path, data in FILES.items()
    }
    assert store.uploads() == []


@pytest.mark.fault(561)
def test_a_second_push_sends_nothing(store: MirrorStore, mirror: Callable[..., Ran]) -> None:
    """What is there is kept after its size and metadata were compared; with --verify every byte of it is read."""
    first_run = mirror("push", 0, "--json").document
    assert (first_run["bytes_sent"], first_run["models"][0]["is_complete"]) == (sum(map(len, FILES.values())), True)
    for words in (("--json",), ("--verify", "--json")):
        again = mirror("push", 0, *words).document
        assert (again["bytes_sent"], again["bytes_kept"]) == (0, sum(map(len, FILES.values())))
        assert {file["status"] for file in again["models"][0]["files"]} == {"kept"}
    assert {one["event"] for one in mirror("push", 0, "--progress", "json").events} >= {"planned", "finished"}
    assert re.search(r"^finished +one  \d+ files  .*  in the mirror already$", mirror("push").err, re.MULTILINE)


@pytest.mark.fault(562)
@pytest.mark.parametrize("checksums", [True, False], ids=["checksums", "etags"])
@pytest.mark.parametrize(
    ("second", "sent"), [(bytes(PART), PART + MIB), (BIG[PART : 2 * PART], MIB)], ids=["wrong", "right"]
)
def test_an_upload_is_gone_on_with(
    store: MirrorStore,
    large: Shell,
    mirror: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    second: bytes,
    sent: int,
    checksums: bool,
) -> None:
    """Of the parts that are there, the right ones are kept and a wrong one is sent again, whether the upload has a
    sha256 of each part, as on AWS, or only an ETag."""
    if checksums:
        monkeypatch.setattr(object_store, "LISTS_CHECKSUMS", re.compile(""))
    key = f"one/{version_of(large)}/big.bin"
    more = {"ChecksumAlgorithm": "SHA256"} if checksums else {}
    store.begin(key, BIG[:PART], second, metadata={"sha256": sha256(BIG)}, **more)
    document = mirror("push", 0, "--json").document
    [file] = [one for one in document["models"][0]["files"] if one["path"] == "big.bin"]
    assert (file["status"], file["resumed_at"], document["bytes_sent"]) == ("pushed", 2 * PART, sent)
    assert store.read(key) == BIG
    assert store.uploads() == []


@pytest.mark.fault(563)
def test_a_changed_file_never_appears(
    store: MirrorStore, shell: Shell, mirror: Callable[..., Ran], ok: Callable[..., Ran]
) -> None:
    """A file that is not the locked one is refused by name, 6; neither it nor a marker is there afterwards, and no part
    of it. The other files are. The hint is that of verify: a copy first if it was edited, a repair if it is damaged."""
    ok(shell, "get one --offline")
    model = shell.models / "one/model.bin"
    stamp = model.stat()
    model.write_bytes(FILES["model.bin"][:-1] + b"?")
    ran = mirror("push", 6)
    assert "one/model.bin: its bytes are not the ones that the lock names" in ran.err
    assert "keep a copy of what was changed; 'mdl verify --repair --force one' replaces it" in ran.err
    os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "mdl verify one --repair fetches" in mirror("push", 6).err
    version = version_of(shell)
    assert store.objects() == {f"one/{version}/{ODD}", f"one/{version}/empty"}
    assert store.uploads() == []


@pytest.mark.fault(563)
def test_no_part_of_a_changed_file_stays(store: MirrorStore, large: Shell, mirror: Callable[..., Ran]) -> None:
    """A file whose last part is not the locked one: 6, and its other parts are thrown away."""
    (large.models / "one/big.bin").write_bytes(BIG[:-1] + b"?")
    assert "not the ones that the lock names" in mirror("push", 6).err
    assert (store.objects(), store.uploads()) == (set(), [])


@pytest.mark.fault(564)
def test_two_pushers_at_once(store: MirrorStore, large: Shell, client: Callable[..., Client]) -> None:
    """Both end in order, whoever is faster, and what lies there is right."""
    with ThreadPoolExecutor(2) as pool:
        for pushing in [pool.submit(mirrors.push, client(), store.url) for _ in range(2)]:
            pushing.result().raise_for_errors()
    version = version_of(large)
    assert store.read(f"one/{version}/big.bin") == BIG
    assert len(marker_of(store, "one", version)["files"]) == 1


@pytest.mark.fault(565)
def test_a_push_that_is_stopped(store: MirrorStore, large: Shell, client: Callable[..., Client]) -> None:
    """It leaves no object of the file that it was sending, and no marker; the next push finishes."""
    from mdl import CancelToken

    cancel = CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, Started):
            cancel.set()

    with pytest.raises(Cancelled):
        mirrors.push(client(connections=1, limit_rate="1M"), store.url, on_event=stop, cancel=cancel)
    version = version_of(large)
    assert not {f"one/{version}/big.bin", f"one/{version}/complete.json"} & store.objects()
    mirrors.push(client(), store.url).raise_for_errors()
    assert store.read(f"one/{version}/big.bin") == BIG


@pytest.mark.fault(566)
@pytest.mark.parametrize(
    ("words", "environ", "code", "says"),
    [
        (["push", "s3://no-such-bucket/m"], {}, 3, "NoSuchBucket"),
        (["pull", "s3://no-such-bucket/m"], {}, 3, "NoSuchBucket"),
        (["check", "s3://no-such-bucket/m"], {}, 3, "NoSuchBucket"),
        (["list", "s3://no-such-bucket/m"], {}, 3, "NoSuchBucket"),
        (["clean", "s3://no-such-bucket/m"], {}, 3, "NoSuchBucket"),
        (["push", "{}"], {"AWS_ACCESS_KEY_ID": ""}, 4, "AWS_ACCESS_KEY_ID"),
        (["push", "{}"], {"MDL_OFFLINE": "1"}, 8, "offline"),
        (["push", "https://host/x"], {}, 2, "s3://bucket/prefix"),
        (["push", "{}", "nobody"], {}, 3, "nobody"),
        (["pull", "{}", "--revision", "main"], {}, 2, "the lock says which one"),
        (["push", "{}", "two"], {}, 8, "'mdl lock'"),
        (["pull", "{}"], {}, 3, "no complete version"),
        (["check", "{}"], {}, 3, "does not have it"),
        (["push", "{}"], {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "MDL_RETRIES": "1"}, 5, "127.0.0.1"),
    ],
)
def test_what_cannot_be_done(
    store: MirrorStore, shell: Shell, mdl: Inside, words: list[str], environ: dict[str, str], code: int, says: str
) -> None:
    """Each reason has its code and its words; no secret is among them."""
    write_catalog(shell, catalog_text({"one": FILES}) + catalog_text({"two": {"f": b"2"}}).partition("\n")[2])
    asked = [word.format(store.url) for word in words]
    ran = done(mdl(with_environ(shell, **environ), "mirror", *asked), code)
    assert says in ran.err
    assert "canary" not in ran.err + ran.out


@pytest.fixture
def tap(store: MirrorStore, mirror: Callable[..., Ran]) -> Callable[..., Ran]:
    """``tap(what, "push", 3)``: as `mirror`, through a server that gives every request to ``what`` first."""

    def run(what: Callable[[Request], Answer | None], verb: str, code: int = 0, *words: str, **environ: str) -> Ran:
        with FaultyServer(tapped(store.environ["AWS_ENDPOINT_URL_S3"], what)) as server:
            return mirror(verb, code, *words, AWS_ENDPOINT_URL_S3=server.url, **environ)

    return run


@pytest.mark.fault(468)
def test_an_upload_of_another_program(store: MirrorStore, large: Shell, mirror: Callable[..., Ran]) -> None:
    """Its parts have another size: mdl begins an upload of its own, whose object has the metadata of a mirror."""
    store.begin(f"one/{version_of(large)}/big.bin", BIG[: PART + 1])
    document = mirror("push", 0, "--json").document
    assert (document["bytes_sent"], document["models"][0]["files"][0]["resumed_at"]) == (len(BIG), 0)
    mirror("check")


@pytest.mark.fault(469)
def test_an_upload_that_another_push_completes(store: MirrorStore, large: Shell, tap: Callable[..., Ran]) -> None:
    """Between the list of the uploads and that of its parts: the object is kept, and nothing is sent."""
    key = f"one/{version_of(large)}/big.bin"
    upload = store.begin(key)

    def complete(request: Request) -> None:
        if request.method == "GET" and "uploadId=" in request.query:
            store.api.abort_multipart_upload(**upload)
            store.put(key, BIG, sha256=sha256(BIG))

    document = tap(complete, "push", 0, "--json").document
    assert (document["bytes_sent"], document["models"][0]["files"][0]["status"]) == (0, "kept")


@pytest.mark.fault(564)
@pytest.mark.parametrize("first", ["without metadata", "absent"])
def test_an_object_that_is_not_seen_whole_at_once(
    store: MirrorStore, large: Shell, tap: Callable[..., Ran], first: str
) -> None:
    """The first look after the upload was completed finds the object half made: mdl looks again."""
    looks: list[str] = []

    def answer(request: Request) -> Answer | None:
        if request.method == "POST" and "uploadId=" in request.query:
            looks.append("completed")
        if not looks or request.method != "HEAD" or len(looks) > 1:
            return None
        looks.append(first)
        return reply(404) if first == "absent" else Answer(200, [("content-length", str(len(BIG)))], b"")

    tap(answer, "push", 0, "--verify")
    assert looks == ["completed", first]
    assert store.read(f"one/{version_of(large)}/big.bin") == BIG


@pytest.mark.fault(469)
@pytest.mark.parametrize("when", ["partNumber=3", "POST"])
def test_an_upload_that_is_thrown_away(
    store: MirrorStore, large: Shell, mirror: Callable[..., Ran], tap: Callable[..., Ran], when: str
) -> None:
    """A clean on another machine, or a rule of the bucket, ends it while its parts are sent, or before it is completed:
    5, as the same command brings the file."""

    def abort(request: Request) -> Answer | None:
        if when not in f"{request.method} {request.query}" or "uploadId=" not in request.query:
            return None
        for one in store.api.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []):
            store.api.abort_multipart_upload(Bucket=store.bucket, Key=one["Key"], UploadId=one["UploadId"])
        return refused(404, "NoSuchUpload")  # moto says 500

    ran = tap(abort, "push", 5, MDL_CONNECTIONS="1")
    assert "one/big.bin: its upload was thrown away meanwhile: NoSuchUpload" in ran.err
    mirror("push", 0, "--verify")


@pytest.mark.fault(471)
def test_a_public_mirror_is_read_without_keys(
    store: MirrorStore, shell: Shell, mirror: Callable[..., Ran], tmp_path: Path
) -> None:
    """What only reads needs none, if the store gives it to everybody; what writes ends with 4 before it asks."""
    mirror("push")
    store.api.put_bucket_acl(Bucket=store.bucket, ACL="public-read")
    for key in store.objects():
        store.api.put_object_acl(Bucket=store.bucket, Key=f"m/{key}", ACL="public-read")
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    for verb in ("list", "check", "pull"):
        mirror(verb, 0, "one", **none, MDL_HOME=str(tmp_path / "new"))
    for verb in ("push", "clean"):
        assert "there are no keys" in mirror(verb, 4, **none).err


@pytest.mark.fault(472)
@pytest.mark.parametrize("verb", ["push", "pull", "check", "list", "clean"])
def test_a_bucket_of_another_region(tap: Callable[..., Ran], verb: str) -> None:
    """S3 redirects there without a URL: 2, and which setting is wrong."""
    elsewhere = refused(301, "PermanentRedirect", ("x-amz-bucket-region", "eu-west-3"))
    ran = tap(lambda request: elsewhere, verb, 2)
    assert "in another region" in ran.err
    assert "AWS_REGION" in ran.err


@pytest.mark.fault(477)
def test_a_marker_that_two_write_at_once(store: MirrorStore, shell: Shell, tap: Callable[..., Ran]) -> None:
    """S3 refuses one of the two, and the other may fail: it is written again."""
    asked: list[str] = []

    def conflict(request: Request) -> Answer | None:
        if request.method == "PUT" and request.path.endswith("complete.json"):
            asked.append(request.path)
        return refused(409, "ConditionalRequestConflict") if len(asked) == 1 and asked[0] == request.path else None

    tap(conflict, "push")
    assert len(marker_of(store, "one", version_of(shell))["files"]) == len(FILES)


def test_what_is_not_here_is_not_pushed(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """A locked file that is not on this disk: 3, by name, and nothing of its model is sent."""
    (shell.models / "one/empty").unlink()
    assert "one/empty: not on this disk" in mirror("push", 3).err
    assert store.objects() == set()


def test_a_file_with_the_name_of_the_marker(tmp_path: Path, store: MirrorStore, ok: Callable[..., Ran]) -> None:
    """It cannot be pushed: the marker of a complete version has that name. 2."""
    shell = mirror_machine(tmp_path / "other", store, {"one": {"complete.json": b"{}"}})
    assert "one/complete.json" in ok(shell, f"lock;mirror push {store.url}", 2).err


# --- check and list ------------------------------------------------------------------------------------------------


@pytest.mark.fault(567)
def test_what_a_check_finds(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """Other bytes are found by --deep alone if their metadata is right; what has another size or digest there, or is
    missing, without it. Corrupt is 6, missing 3; a push brings it all back."""
    mirror("push")
    version = version_of(shell)
    store.tamper(f"one/{version}/model.bin")
    assert mirror("check", 0, "--json").document["bytes_read"] == 0
    deep = mirror("check", 6, "--deep", "--json").document
    assert {file["path"]: file["status"] for file in deep["models"][0]["files"]} == {
        "model.bin": "corrupt",
        ODD: "ok",
        "empty": "ok",
    }
    store.put(f"one/{version}/{ODD}", b"{}", sha256=sha256(b"{}"))
    assert "has 2 bytes, not 8" in mirror("check", 6).err
    store.api.delete_object(Bucket=store.bucket, Key=f"m/one/{version}/empty")
    mirror("check", 6)
    mirror("push", 0, "--verify")
    assert mirror("check", 0, "--deep").err.endswith(f"{len(FILES)} files ok, 300.0 kB read\n")
    store.api.delete_object(Bucket=store.bucket, Key=f"m/one/{version}/empty")
    assert "one/empty: it is not in the mirror" in mirror("check", 3).err


@pytest.mark.fault(568, 476)
def test_a_marker_that_lies(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """A marker of other files, or what is no marker at all, is 6 for a check, and the latter for a pull too; a push
    compares every file and writes it anew, but not in the place of one that a newer mdl wrote."""
    mirror("push")
    key = f"one/{version_of(shell)}/complete.json"
    right = store.read(key)
    other = right.replace(sha256(FILES["model.bin"]).encode(), b"0" * 64)
    for lie, pulled in ((other, 0), (right.replace(ODD.encode(), b"x"), 0), (b"{}", 6), (b"[" * 100_000, 6)):
        store.put(key, lie)
        assert "push" in mirror("check", 6).err
        mirror("pull", pulled)
        mirror("push")
        assert marker_of(store, "one", version_of(shell))["files"] == json.loads(right)["files"]
    store.put(key, right.replace(b"complete/1", b"complete/2"))
    for verb in ("check", "pull", "push"):
        assert "upgrade mdl" in mirror(verb, 6).err
    assert b"complete/2" in store.read(key)


def test_list_tells_versions_apart(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """Every version with what its marker says, those without one as incomplete; objects of others are no versions."""
    mirror("push")
    store.put("one/0123456789abcdef/f.bin", b"half")
    store.put("readme.txt", b"of somebody else")
    found = {row["version"]: row for row in mirror("list", 0, "--json").document["models"]}
    assert {key: (row["is_complete"], row["is_locked"]) for key, row in found.items()} == {
        version_of(shell): (True, True),
        "0123456789abcdef": (False, False),
    }
    assert found[version_of(shell)]["objects"] == len(FILES) + 1
    assert "incomplete" in mirror("list", 0, "one").out
    ran = mirror("list", 0, "another")
    assert (ran.out, "the mirror has none of: another" in ran.err) == ("", True)


# --- pull, and mirrors that a download asks ------------------------------------------------------------------------


@pytest.mark.fault(569)
def test_pull_brings_what_was_pushed(
    store: MirrorStore, shell: Shell, mirror: Callable[..., Ran], tmp_path: Path
) -> None:
    """On a machine that has the catalog and the lock alone: verified by the lock, with receipts, so that nothing is
    hashed or fetched again; its last line is the folder."""
    mirror("push")
    new = tmp_path / "new"
    ran = mirror("pull", 0, MDL_HOME=str(new))
    assert ran.out == f"{new / 'one'}\n"
    assert {path: (new / "one" / path).read_bytes() for path in FILES} == FILES
    again = mirror("pull", 0, "one", "--json", MDL_HOME=str(new)).document
    assert (again["bytes_fetched"], {file["action"] for file in again["models"][0]["files"]}) == (0, {"kept"})
    assert again["models"][0]["files"][0]["verified"] == "sha256"


@pytest.mark.fault(479)
def test_a_pull_is_resumed_as_a_job(
    store: MirrorStore, shell: Shell, mirror: Callable[..., Ran], tmp_path: Path
) -> None:
    """A pull that failed is the same command again, both of its words, also in the background."""
    new = {"MDL_HOME": str(tmp_path / "new")}
    mirror("push")
    key = f"one/{version_of(shell)}/model.bin"
    store.tamper(key)
    mirror("pull", 6, **new)
    store.put(key, FILES["model.bin"])
    ran = done(with_environ(shell, **new).run("jobs", "resume", the_job(shell).id, "--detach"))
    done(shell.run("jobs", "watch", ran.out.strip()))
    assert (tmp_path / "new/one/model.bin").read_bytes() == FILES["model.bin"]


@pytest.mark.fault(570)
def test_a_tampered_object_is_never_taken(
    store: MirrorStore, shell: Shell, mdl: Inside, mirror: Callable[..., Ran], tmp_path: Path
) -> None:
    """A pull of it is 6 and publishes nothing; a download that knows another mirror takes the file from there."""
    mirror("push")
    second = MirrorStore.at(store.environ)
    done(mdl(shell, "mirror", "push", second.url))
    store.tamper(f"one/{version_of(shell)}/model.bin")
    new = with_environ(shell, MDL_HOME=str(tmp_path / "new"))
    assert done(mdl(new, "mirror", "pull", store.url, "--json"), 6).document["error"]["code"] == "HASH"
    assert not (tmp_path / "new/one/model.bin").exists()
    ran = done(mdl(new, "get", "one", "--mirror", f"{store.url},{second.url}"))
    assert f"expected sha256:{sha256(FILES['model.bin'])}; going on with {second.bucket}" in ran.err
    assert (tmp_path / "new/one/model.bin").read_bytes() == FILES["model.bin"]


@pytest.mark.fault(571)
@pytest.mark.parametrize("way", ["config.toml", "variable", "flag"])
def test_the_setting_is_asked_first(
    store: MirrorStore, shell: Shell, mdl: Inside, mirror: Callable[..., Ran], tmp_path: Path, way: str
) -> None:
    """A mirror of the settings is asked before the source: here nobody else answers."""
    mirror("push")
    new = with_environ(
        shell, MDL_HOME=str(tmp_path / "new"), **({"MDL_MIRROR": store.url} if way == "variable" else {})
    )
    if way == "config.toml":
        settings(shell, f'[defaults]\nmirror = "{store.url}"\n')
    ran = done(mdl(new, "get", "one", "--json", *(("--mirror", store.url) if way == "flag" else ())))
    assert ran.document["bytes_fetched"] == sum(map(len, FILES.values()))


@pytest.mark.fault(572)
def test_a_download_goes_on_at_the_mirror(
    store: MirrorStore, large: Shell, mdl: Inside, mirror: Callable[..., Ran], tmp_path: Path
) -> None:
    """A source that breaks in the middle of a file and is gone then, a mirror that does not have it: the next mirror of
    the catalog's entry brings the rest, and not one byte twice."""
    mirror("push")
    with FaultyServer(first(1, cut(honest(BIG), 4 * MIB), answers(404))) as server:
        own = f'mirrors = ["s3://{store.bucket}/empty", "{store.url}"]\n'
        lock = (large.home / "mdl.lock").read_text()
        (large.home / "mdl.lock").write_text(lock.replace(ABSENT, server.url))
        write_catalog(large, catalog_text({"one": {"big.bin": BIG}}, more=own))
        new = with_environ(large, MDL_HOME=str(tmp_path / "new"))
        document = done(
            mdl(new, "get", "one", "--frozen", "--include", "big.bin", "--connections", "1", "--json")
        ).document
    assert (document["bytes_fetched"], document["bytes_discarded"]) == (len(BIG), 0)
    assert (tmp_path / "new/one/big.bin").read_bytes() == BIG


def test_mirrors_in_one_store_have_etags_of_their_own(
    store: MirrorStore, large: Shell, mdl: Inside, mirror: Callable[..., Ran], tmp_path: Path
) -> None:
    """The same bytes, put there in parts and as a whole, have two ETags: a download that changes from one object to the
    other in the middle goes on where it was."""
    mirror("push")
    key = f"one/{version_of(large)}/big.bin"
    other = MirrorStore(store.environ, f"{store.bucket}-whole")
    other.api.create_bucket(Bucket=other.bucket)
    other.put(key, BIG, sha256=sha256(BIG))
    place = store.environ["AWS_ENDPOINT_URL_S3"]

    def until_it_breaks(client: socket.socket) -> socket.socket:
        """The first object breaks off in its middle, and is then gone."""
        head = client.recv(65_536, socket.MSG_PEEK)
        if f"/{store.bucket}/m/{key}".encode() not in head:
            return client
        try:
            return Metered(client, Meter(), 4 * MIB)
        finally:
            asked.append(head)
            if len(asked) > 1:
                store.api.delete_object(Bucket=store.bucket, Key=f"m/{key}")

    asked: list[bytes] = []
    with relaying(int(place.rpartition(":")[2]), until_it_breaks) as relay:
        new = with_environ(large, MDL_HOME=str(tmp_path / "new"), AWS_ENDPOINT_URL_S3=relay.url)
        words = ("get", "one", "--mirror", f"{store.url},{other.url}", "--connections", "1", "--json")
        document = done(mdl(new, *words)).document
    assert asked
    assert document["bytes_discarded"] == 0
    assert (tmp_path / "new/one/big.bin").read_bytes() == BIG


@pytest.mark.fault(470)
def test_a_mirror_without_the_model_costs_nothing_but_a_question(
    store: MirrorStore, shell: Shell, mdl: Inside, tmp_path: Path
) -> None:
    """What the mirror does not have comes from the source. That the mirror lacks it is told once, not file by file."""
    files = {f"f{number}.json": b'{"a": 1}' for number in range(5)}
    with FaultyServer(honest(b'{"a": 1}')) as server:
        shell = mirror_machine(tmp_path / "other", store, {}, MDL_MIRROR=store.url)
        settings(shell, '[stores]\nlink = "none"\n')
        write_catalog(shell, catalog_text({"one": files}, server.url))
        done(mdl(shell, "lock"))
        ran = done(mdl(shell, "get", "one"))
    assert (shell.models / "one/f0.json").read_bytes() == b'{"a": 1}'
    assert ran.err.count("; going on with 127.0.0.1") == 1
    assert " retry " not in ran.err


@pytest.mark.parametrize("text", ['mirror = "https://host/x"', 'mirror = ["s3://a?b"]', "mirror = 3"])
def test_a_setting_that_is_no_mirror(shell: Shell, mdl: Inside, text: str) -> None:
    """It is an error of the settings, 2."""
    settings(shell, f"[defaults]\n{text}\n")
    assert "config.toml:2" in done(mdl(shell, "list"), 2).err


def test_mirrors_of_an_entry_are_checked(shell: Shell, mdl: Inside) -> None:
    """What is no place of a mirror is a mistake of the catalog, with its line."""
    write_catalog(shell, catalog_text({"one": FILES}, more='mirrors = ["https://host/x"]\n'))
    assert "s3://bucket/prefix" in done(mdl(shell, "list"), 2).err


@pytest.mark.parametrize("layout", ["plain", "hf-cache"])
def test_what_comes_from_the_hub(
    tmp_path: Path, store: MirrorStore, mdl: Inside, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """A repository, whose small files the lock knows by git's digest, is pushed from both layouts, pulled into both,
    and repaired from the mirror when the hub is gone."""
    files = {"config.json": b"{}", "unet/model.bin": FILES["model.bin"]}
    with LoopbackHub([Repo("org/tiny", files)]) as hub:
        shell = mirror_machine(tmp_path / "hub", store, {}, MDL_LAYOUT=layout, MDL_MIRROR=store.url)
        shell = write_catalog(replace(shell, endpoint=hub.url), 'schema = 1\n[models.one]\nsource = "hf:org/tiny"\n')
        for words in ("lock", "get one", f"mirror push {store.url} --verify", f"mirror check {store.url} --deep"):
            done(mdl(shell, *words.split()))
    marker = marker_of(store, "one", version_of(shell))
    assert {one["path"]: one["sha256"] for one in marker["files"]} == {
        path: sha256(data) for path, data in files.items()
    }
    assert (marker["source"], len(marker["commit"])) == ("hf:org/tiny", 40)
    new = with_environ(shell, MDL_HOME=str(tmp_path / "new"), HF_HOME=str(tmp_path / "newhf"))
    done(mdl(new, "mirror", "pull", store.url))
    done(mdl(new, "get", "one", "--frozen"))
    [weights] = [
        path
        for path in tmp_path.rglob("new*/**/*")
        if not path.is_symlink() and path.is_file() and path.stat().st_size == 300_000
    ]
    weights.chmod(0o600)
    flip(weights, 1000)
    done(mdl(new, "verify", "one"), 6)
    done(mdl(new, "verify", "one", "--repair"))
    assert weights.read_bytes() == FILES["model.bin"]


# --- clean ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault(573)
def test_clean_takes_what_nobody_needs(
    store: MirrorStore, shell: Shell, mdl: Inside, mirror: Callable[..., Ran]
) -> None:
    """A version that the lock left behind goes once the locked one is complete there, and not before; so do uploads and
    versions without a marker, but nothing young. It shows first."""
    mirror("push")
    old, new = version_of(shell), {"model.bin": b"another"}
    write_catalog(shell, catalog_text({"one": new}))
    done(mdl(shell, "lock"))
    [row] = mirror("clean", 0, "--older-than", "0s", "--json").document["items"]
    assert (row["kind"], row["action"]) == ("superseded", "kept")
    assert "not complete here" in row["why"]
    write_files(shell.models / "one", new)
    mirror("push")
    store.put("two/0123456789abcdef/f.bin", b"half")
    store.begin("two/0123456789abcdef/g.bin")
    lock = version_of(shell)
    before = store.objects()
    young = mirror("clean", 0, "--older-than", "300d", "--json").document["items"]  # moto says 2010 of every upload
    assert {row["action"] for row in young if row["kind"] != "upload"} == {"kept"}
    shown = mirror("clean", 0, "--older-than", "0s", "--json").document["items"]
    assert {(row["kind"], row["action"]) for row in shown} == {
        ("superseded", "would delete"),
        ("incomplete", "would delete"),
        ("upload", "would delete"),
    }
    assert store.objects() == before
    mirror("clean", 0, "one", "--older-than", "0s", "--yes")
    assert store.objects() == {f"one/{lock}/model.bin", f"one/{lock}/complete.json", "two/0123456789abcdef/f.bin"}
    assert not [key for key in store.objects() if old in key]
    mirror("clean", 0, "--older-than", "0s", "--yes")
    assert (store.objects(), store.uploads()) == ({f"one/{lock}/model.bin", f"one/{lock}/complete.json"}, [])
    assert "nothing to clean" in mirror("clean", 0, "--older-than", "0s").err


@pytest.mark.fault(573)
def test_clean_leaves_a_push_alone_that_takes_long(
    store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]
) -> None:
    """An upload is as old as its newest part (moto says of every one that it was begun in 2010), and what else is there
    of the version that is being pushed stays as long."""
    upload = store.begin("two/0123456789abcdef/f.bin")
    store.put("two/0123456789abcdef/g.bin", b"sent before")
    old = mirror("clean", 0, "--older-than", "300d", "--json").document["items"]
    assert {row["kind"]: row["action"] for row in old} == {"incomplete": "kept", "upload": "would delete"}
    store.api.upload_part(**upload, PartNumber=1, Body=b"part")
    young = mirror("clean", 0, "--older-than", "300d", "--yes", "--json").document["items"]
    assert {row["kind"]: row["action"] for row in young} == {"incomplete": "kept", "upload": "kept"}
    assert len(store.uploads()) == 1


def test_clean_never_takes_what_the_lock_names(store: MirrorStore, shell: Shell, mirror: Callable[..., Ran]) -> None:
    """Not even a version that was left without its marker, and none of a model that the lock does not have."""
    mirror("push")
    store.api.delete_object(Bucket=store.bucket, Key=f"m/one/{version_of(shell)}/complete.json")
    store.put("other/0123456789abcdef/complete.json", b"{}")
    before = store.objects()
    items = mirror("clean", 0, "--older-than", "0s", "--yes", "--json").document["items"]
    assert [(row["name"], row["action"]) for row in items] == [("one", "kept")]
    assert store.objects() == before


@pytest.mark.fault(475)
@pytest.mark.parametrize(
    ("when", "path", "action"), [("GET", "new.bin", "kept"), ("DELETE", "complete.json", "deleted")]
)
def test_clean_while_another_machine_pushes(
    store: MirrorStore, mirror: Callable[..., Ran], tap: Callable[..., Ran], when: str, path: str, action: str
) -> None:
    """An old version without a marker, into which a push writes once it was judged: it is kept. If the push writes the
    marker while the objects are deleted, the marker goes too: it would call complete what is not there."""
    folder = "two/0123456789abcdef"
    store.put(f"{folder}/f.bin", b"sent before")

    def push(request: Request) -> None:
        if request.method == when and ("uploads" in request.query or when == "DELETE"):
            store.put(f"{folder}/{path}", b"{}")

    [row] = tap(push, "clean", 0, "--older-than", "0s", "--yes", "--json").document["items"]
    assert row["action"] == action
    assert store.objects() == ({f"{folder}/f.bin", f"{folder}/{path}"} if action == "kept" else set())


@pytest.mark.parametrize("what", ["upload", "incomplete"])
def test_clean_goes_on_after_what_it_may_not_delete(store: MirrorStore, tap: Callable[..., Ran], what: str) -> None:
    """4 in the store's words, which are told of that item; the others are deleted, and it is told."""
    for name in ("one", "two", "three"):
        store.put(f"{name}/0123456789abcdef/f.bin", b"half")
    store.begin("two/0123456789abcdef/g.bin")

    def refuse(request: Request) -> Answer | None:
        asked = f"{request.target} {request.body!r}"
        is_meant = request.method in ("DELETE", "POST") and "two/0123" in asked
        is_upload = request.method == "DELETE" and "uploadId" in asked
        return refused(403, "AccessDenied") if is_meant and is_upload == (what == "upload") else None

    ran = tap(refuse, "clean", 4, "--older-than", "0s", "--yes", "--json")
    assert "AccessDenied" in ran.err
    rows = {(row["name"], row["kind"]): row for row in ran.document["items"]}
    assert {key for key, row in rows.items() if row["action"] == "kept"} == {("two", what)}
    assert "could not be deleted: AccessDenied" in rows["two", what]["why"]
    left = store.objects() | set(store.uploads())
    assert left == {f"two/0123456789abcdef/{'g' if what == 'upload' else 'f'}.bin"}


def test_the_page_about_mirrors(tmp_path: Path, store: MirrorStore, mdl: Inside) -> None:
    """Every command of mdl/plugins/mirror/mirrors.md works, in its order."""
    page = (Path(__file__).parents[3] / "mdl/plugins/mirror/mirrors.md").read_text("utf-8")
    lines = page.partition("<!-- mirror -->\n```sh\n")[2].partition("```")[0].splitlines()
    assert len(lines) > 5
    with FaultyServer(honest(FILES[ODD])) as server:
        catalog = catalog_text({"bert-fa": {"config.json": FILES[ODD]}}, server.url)
        shell = write_catalog(mirror_machine(tmp_path / "page", store, {}), catalog)
        for line in lines:
            words = shlex.split(line.replace("s3://models/mirror", store.url), comments=True)[1:]
            done(mdl(shell, *(word.replace("/srv/", f"{tmp_path}/srv/") for word in words)))
    for folder in ("a", "b"):
        assert (tmp_path / "srv" / folder / "bert-fa/config.json").read_bytes() == FILES[ODD]


def test_offline_is_an_error_of_the_library(store: MirrorStore, client: Callable[..., Client]) -> None:
    """A client that may contact nobody says so before anything is done."""
    with pytest.raises(MdlError, match="offline"):
        mirrors.versions(client(offline=True), store.url)
