"""Special files: what mdl publishes replaces regular files only; a pipe is never waited for, and no file is endless."""

from __future__ import annotations

import os
import socket
import stat
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.faulty_server import FaultyServer
from support.jobs import put_job, records_of, state_of
from support.long import LONG
from support.shell import Inside, Shell, settings, with_environ

from mdl.disk import publish
from mdl.disk.process import ProcessId
from mdl.jobs.job import Invocation, Job
from mdl.paths import record_name

Made = Callable[[Path], object]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _device(path: Path) -> None:
    """A null device of the test's own."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError as error:
        pytest.skip(f"NO DEVICE CAN BE MADE HERE: {error}")


def _link_to_device(path: Path) -> None:
    _device(path.with_name("device"))
    path.symlink_to("device")


KINDS: dict[str, Made] = {
    "device": _device,
    "link to a device": _link_to_device,
    "pipe": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
}


def _link_to_file(path: Path) -> None:
    path.with_name("file").write_bytes(b"of another program")
    path.symlink_to("file")


LINKS: dict[str, Made] = {"link to a file": _link_to_file, "link to nothing": lambda path: path.symlink_to("nothing")}
"""/dev/stdout is such a link, and /dev is shared."""


@pytest.mark.fault(263)
@pytest.mark.parametrize("kind", KINDS | LINKS)
@pytest.mark.parametrize(
    "words", ["prefetch --all --metrics out", "prefetch --all --ready-file out", "get one --ready-file out"]
)
def test_no_special_file_is_replaced(shell: Shell, server: FaultyServer, mdl: Inside, words: str, kind: str) -> None:
    """A device, pipe, socket, folder or link in place of an output: 2 before anything is asked, and it stays what it
    is; what a link leads to stays too."""
    out = shell.home / "out"
    (KINDS | LINKS)[kind](out)
    before, names = out.lstat(), {*os.listdir(shell.home)}
    ran = mdl(shell, *words.split())
    assert (ran.code, "out" in ran.err, server.requests) == (2, True, [])
    assert (out.lstat().st_mode, out.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert {*os.listdir(shell.home)} - {".local"} == names
    assert kind != "link to a file" or out.read_bytes() == b"of another program"


@pytest.mark.fault(263)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", ["write_file", "staged_file", "link", "withdraw"])
def test_the_door_itself_refuses(tmp_path: Path, door: str, kind: str) -> None:
    """Whatever would be put in place of a special file, or remove it, the one publishing door refuses; nothing is left
    staged."""
    out, file = tmp_path / "out", tmp_path / "file"
    file.write_bytes(b"bytes")
    KINDS[kind](out)
    before, names = out.lstat(), sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError):
        if door == "write_file":
            publish.write_file(out, b"bytes")
        elif door == "link":
            publish.link(file, out)
        elif door == "withdraw":
            publish.unpublish(out)
        else:
            with publish.staged_file(out):
                pass
    assert (out.lstat().st_mode, out.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert sorted(os.listdir(tmp_path)) == names


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(300 * 10**6)


NOT_REGULAR: dict[str, Made] = {
    "pipe": os.mkfifo,
    "endless device": lambda path: os.symlink("/dev/zero", path),
    "huge": _sparse,
}


_JOB = Job(
    "0102-abcd", "get", ("one",), str(ProcessId.current()), "h", Invocation(), "2026-01-02T03:04:05.678Z", status="done"
)
READERS: dict[str, tuple[str, str, dict[str, str], tuple[int, ...]]] = {
    "token": ("odd", "get org/repo", {"HF_TOKEN_PATH": "odd"}, (2,)),
    "token in doctor": ("odd", "doctor --offline", {"HF_TOKEN_PATH": "odd"}, (2,)),
    "settings": (".config/mdl/config.toml", "list", {}, (2,)),
    "catalog": ("odd", "list --catalog odd", {}, (2,)),
    "lock": ("mdl.lock", "get one --locked", {}, (12,)),
    "releases of a rollback": ("releases.json", "rollback .", {}, (12,)),
    "log of a job": ("odd", "jobs log 0102", {}, (0, 7)),
    "certificates": ("odd", "get https://127.0.0.1:8/f", {"SSL_CERT_FILE": "odd"}, (13,)),
    "certificates in doctor": ("odd", "doctor --offline", {"SSL_CERT_FILE": "odd"}, (13,)),
}


@pytest.mark.fault(269)
@pytest.mark.parametrize("kind", NOT_REGULAR if LONG else ("pipe", "huge"))
@pytest.mark.parametrize("reader", READERS)
def test_what_is_read_is_regular_and_bounded(shell: Shell, mdl: Inside, reader: str, kind: str) -> None:
    """A pipe is not waited for, a device or a file of 300 MB not read: within 400 MB of memory it is told."""
    place, words, variables, codes = READERS[reader]
    path = shell.home / place
    path.parent.mkdir(parents=True, exist_ok=True)
    NOT_REGULAR[kind](path)
    if kind == "huge" and reader == "log of a job":
        pytest.skip("a log may be long, and is shown piece by piece")
    put_job(records_of(shell), replace(_JOB, log=str(path)))
    (shell.home / "releases").mkdir()
    shell = with_environ(shell, **{name: str(shell.home / value) for name, value in variables.items()})
    if kind == "pipe":
        ran = mdl(shell, *words.split())
    else:
        ran = shell.run(*words.split(), prefix=("prlimit", "--data=400000000"))
    assert ran.code in codes, ran.out[-1000:] + ran.err[-1000:]
    assert "Traceback" not in ran.err


@pytest.mark.fault(269)
@pytest.mark.parametrize("kind", NOT_REGULAR)
def test_an_odd_receipt_is_none(shell: Shell, mdl: Inside, kind: str) -> None:
    """In place of a receipt they count as no receipt: the file is hashed, and kept."""
    assert mdl(shell, "get", "one").code == 0
    [receipt] = (shell.models / ".mdl" / "receipts" / record_name("one")).iterdir()
    receipt.unlink()
    NOT_REGULAR[kind](receipt)
    ran = shell.run("get", "one", "--json", prefix=("prlimit", "--data=400000000"))
    assert (ran.code, ran.document["bytes_fetched"]) == (0, 0), ran.err


NOBODY = "~nosuchuser/x"
TILDES: dict[str, tuple[str, dict[str, str], str]] = {
    "--to": (f"get one --to {NOBODY}", {}, "--to"),
    "--into": (f"get one --into {NOBODY}", {}, "--into"),
    "--log-file": (f"get one --log-file {NOBODY}", {}, "--log-file"),
    "--ready-file": (f"get one --ready-file {NOBODY}", {}, "--ready-file"),
    "--metrics": (f"prefetch --all --metrics {NOBODY}", {}, "--metrics"),
    "hf-cache": (f"get one --layout hf-cache --to {NOBODY}", {}, "--to"),
    "MDL_HOME": ("list", {"MDL_HOME": NOBODY}, "MDL_HOME"),
    "HF_HUB_CACHE": ("get one --layout hf-cache", {"HF_HUB_CACHE": NOBODY}, "HF_HUB_CACHE"),
    "HF_HOME": ("get one --layout hf-cache", {"HF_HOME": NOBODY}, "HF_HOME"),
    "MDL_LOG_FILE": ("get one", {"MDL_LOG_FILE": NOBODY}, "MDL_LOG_FILE"),
    "stores": ("get one", {}, "stores.also"),
    "home": ("list", {"MDL_HOME": ""}, "defaults.home"),
    "checkpoints": (f"checkpoints {NOBODY}", {}, "RUN"),
    "pack": (f"pack {NOBODY}", {}, "RUN"),
    "-o": (f"pack . -o {NOBODY}", {}, "-o"),
    "unpack": (f"unpack {NOBODY}", {}, "ARCHIVE"),
    "unpack --to": (f"unpack x.zip --to {NOBODY}", {}, "--to"),
    "rollback": (f"rollback {NOBODY}", {}, "DIR"),
}


@pytest.mark.fault(267)
@pytest.mark.parametrize("where", TILDES)
def test_the_home_of_nobody(shell: Shell, mdl: Inside, where: str) -> None:
    """A path that begins with ~ and an unknown user is 2, and names the setting it is in; nothing is fetched."""
    words, variables, item = TILDES[where]
    table, _, key = item.partition(".")
    if key:
        value = f"'{NOBODY}'" if key == "home" else f"['{NOBODY}']"
        settings(shell, f"[{table}]\n{key} = {value}\n")
    ran = mdl(with_environ(shell, **variables), *words.split())
    assert (ran.code, item in ran.err, "~nosuchuser" in ran.err) == (2, True, True), ran.err


DEEP = {"brackets": "x-a = " + "[" * 3000, "digits": "x-a = " + "9" * 5000, "keys": "x-" + "a." * 5000 + "b = 1"}


@pytest.mark.fault(268)
@pytest.mark.parametrize("text", DEEP)
@pytest.mark.parametrize(
    ("place", "words", "code"),
    [
        (".config/mdl/config.toml", "list", 2),
        ("catalog.toml", "list", 2),
        ("mdl.lock", "get one --locked", 12),
    ],
)
def test_toml_that_is_too_much(shell: Shell, mdl: Inside, place: str, words: str, code: int, text: str) -> None:
    """Countless brackets, digits or parts of a key are an error that names the file; no traceback."""
    path = shell.home / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(DEEP[text])
    ran = mdl(shell, *words.split())
    assert (ran.code, path.name in ran.err) == (code, True)


JSON = {"brackets": "[" * 100_000, "digits": '{"schema": ' + "9" * 5000 + "}"}


@pytest.mark.fault(268)
@pytest.mark.parametrize("text", JSON)
def test_json_that_is_too_much(shell: Shell, mdl: Inside, text: str) -> None:
    """So for the history of releases, the record of a job, a lock's holder and a listing."""
    (shell.home / "releases").mkdir()
    (shell.home / "releases.json").write_text(JSON[text])
    assert mdl(shell, "rollback", ".").code == 12
    jobs = state_of(shell) / "jobs"
    jobs.mkdir(parents=True)
    body = JSON[text].encode()
    (jobs / "0102-abcd.job").write_bytes(b"%08x %s\n" % (zlib.crc32(body), body))
    assert mdl(shell, "jobs").code == 0
    (shell.models / ".mdl" / "locks").mkdir(parents=True)
    (shell.models / ".mdl" / "locks" / f"{record_name('one')}.who").write_text(JSON[text])
    assert mdl(shell, "get", "one").code == 0
