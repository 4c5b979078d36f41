"""A stage for one kill: its hub, server, home and catalog, and a look at what of it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness import environment, mdl
from support.faults import honest
from support.faulty_server import FaultyServer
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.release_kills import Scene

from mdl import crc_json
from mdl.archive.base import ArchiveLimits
from mdl.archive.manifest import NAME
from mdl.archive.releases import ReleaseDir, from_json
from mdl.archive.unpack import open_archive
from mdl.catalog.lock_file import parse_lock
from mdl.catalog.reader import parse_catalog
from mdl.demo.repositories import digest_of
from mdl.disk.process import ProcessId
from mdl.downloader import journal
from mdl.downloader.receipts import RECORD, Receipts
from mdl.jobs.records import Records
from mdl.paths import record_name

PATIENCE = 120.0
"""Seconds that a command may take."""
PACE, SLOW = 12 * 2**20, 2**17
"""Bytes a second: enough time for several claims; and slow enough to be paused on the way."""
SIZE = 4 * 2**20
ONE = Repo("bench/one", {"config.json": b"{}\n", "model.bin": Generated(SIZE, "one")})
TWIN = Repo("bench/twin", {"copy.bin": Generated(SIZE, "one")})
LONG = Repo("bench/long", {"config.json": b"[]\n", "model.bin": Generated(5 * SIZE, "long")})
DAMAGED = 17 * 2**20
_DIRECT = b"nobody published a digest of this\0" * 99
_KNOWN = {
    f"models/{repo.id[6:]}/{path}": digest_of(content, "sha256").hex
    for repo in (ONE, TWIN, LONG)
    for path, content in repo.files.items()
} | {"models/direct/direct.bin": digest_of(_DIRECT, "sha256").hex}
_OWN = re.compile(r"(models|cache/\.locks|service)/\.mdl(/|$)|cache/\.locks$|home(/|$)|out\.log")
_STAGED = re.compile(r"\.mdl-tmp(/|$)")
_CATALOG = """schema = 1

# a comment that stays
[models.one]
title = "One"
source = "hf:bench/one"

[models.twin]
title = "The same bytes"
source = "hf:bench/twin"

[models.long]
title = "Long"
source = "hf:bench/long"

[[models.direct.files]]
path = "direct.bin"
url = "{url}/direct.bin"

[groups]
both = ["one", "twin"]
"""


class Stage:
    """A folder for one kill: a hub, a server of one file, a home, a catalog. ``job`` is its job's id."""

    def __init__(self, place: Path, scene: Scene, over: set[str], stack: ExitStack) -> None:
        self.place, self.scene, self.over, self.job = place, scene, over, ""
        place.mkdir(parents=True)
        self.hub = stack.enter_context(LoopbackHub([ONE, TWIN, LONG], bytes_per_second=PACE))
        server = stack.enter_context(FaultyServer(honest(_DIRECT)))
        (place / "catalog.toml").write_text(_CATALOG.format(url=server.url))
        self.env = environment(place / "home") | {"HF_ENDPOINT": self.hub.url, "MDL_HOME": str(place / "models")}
        self.env |= {"MDL_CONNECTIONS": "1", "MDL_CATALOG": str(place / "catalog.toml"), "MDL_PROGRESS": "none"}
        stack.callback(self._end_jobs)

    def _end_jobs(self) -> None:
        """What still runs in the background, of this stage alone."""
        for job in self.records([]).all():
            if job.status == "running" and ProcessId(job.owner).pid:
                os.kill(ProcessId(job.owner).pid, signal.SIGKILL)

    def command(self, words: Sequence[str]) -> list[str]:
        return mdl(*(word.replace("{job}", self.job) for word in words))

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self.command(words),
            env=self.env,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def must(self, *words: str) -> str:
        """A step of the preparation; returns what it prints."""
        done = self.run(words)
        assert done.returncode == 0, f"{words} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def sent(self, since: int) -> int:
        """Bytes of large files that the hub has sent for its requests after the first ``since``."""
        return sum(one.body_bytes_sent for one in self.hub.requests[since:] if one.origin == "cdn")

    def records(self, damaged: list[str]) -> Records:
        return Records(self.place / "home/.local/state/mdl/jobs", lambda path, why: damaged.append(f"{path}: {why}"))

    @property
    def needed(self) -> int:
        """Bytes of bench/one's large file that are neither published nor claimed."""
        if any((self.place / name).exists() for name in ("models/one/model.bin", f"cache/{_BLOB}")):
            return 0
        found = [journal.load(path) for path in self.place.rglob("journal")]
        return SIZE - max((record.have.total for record in found if record), default=0)

    def names(self) -> dict[str, str]:
        """Everything outside mdl's own folders, and what it holds; and how the jobs stand that are not ``over``."""
        found = {name: _mark(path) for name, path in self._all() if not _OWN.match(name)}
        jobs = {(job.command, job.status) for job in self.records([]).all() if job.status not in self.over}
        return found | {"its jobs": str(sorted(jobs))}

    def left(self) -> list[str]:
        """What is in mdl's own folders and of no use to anybody."""
        found = [name for name, path in self._all() if _OWN.match(name) and path.is_file() and _USELESS.search(name)]
        return [re.sub("[0-9a-f]{12,}(-[0-9]+-[0-9]+)?", "*", name) for name in found]

    def _all(self) -> Iterator[tuple[str, Path]]:
        for at, folders, files in os.walk(self.place):
            for path in (Path(at, name) for name in (*folders, *files)):
                yield str(path.relative_to(self.place)), path

    def wrong(self) -> list[str]:
        """Whatever bears a final name and is not whole."""
        damaged: list[str] = []
        self.records(damaged).all()
        for name, path in self._all():
            if not _STAGED.search(name) and not path.is_dir():
                try:
                    damaged += [f"{name}: {why}" for why in [_trouble(path, name)] if why]
                except Exception as error:
                    damaged.append(f"{name}: {type(error).__name__}: {error}")
        for whole in (self.place / "unpacked", self.place / "service" / "current"):
            held = {str(one.relative_to(whole)): one.read_bytes() for one in whole.rglob("*") if one.is_file()}
            held.pop(NAME, None)
            if os.path.lexists(whole) and held not in self.scene.files.values():
                damaged.append(f"{whole.name} is not whole: {sorted(held)}")
        return damaged


_BLOB = f"models--bench--one/blobs/{ONE.stored['model.bin'].digest.hex}"
_USELESS = re.compile(r"\.mdl-tmp|/partials/|/side/")


def _mark(path: Path) -> str:
    """What a file is compared by: its bytes; of what bears the time only that it is there."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_dir() or path.suffix in (".prom", ".ready"):
        return "there"
    data = path.read_bytes()
    if path.name == "releases.json":
        history = ReleaseDir(path.parent).history()
        return str((history.releases, history.served, history.withdrawn))
    if path.suffix in (".toml", ".lock"):
        data = re.sub(rb'127\.0\.0\.1:\d+|entry = "[0-9a-f]+"', b"server", data)
    return hashlib.sha256(data).hexdigest()


def _trouble(path: Path, name: str) -> str:
    """What is wrong with one file that bears a final name, or ''. May raise anything."""
    data = path.read_bytes()
    if name in _KNOWN:
        return "" if hashlib.sha256(data).hexdigest() == _KNOWN[name] else "wrong bytes under a final name"
    if "/blobs/" in name:
        digests = (hashlib.sha256(data), hashlib.sha1(b"blob %d\0" % len(data) + data))
        return "" if path.name in [one.hexdigest() for one in digests] else "wrong bytes under a final name"
    if name == "out.zip":
        with open_archive(path, ArchiveLimits()) as archive, open(os.devnull, "wb") as null:
            for member in archive.members:
                archive.copy(member, null.fileno(), lambda _count: None)
    checks: dict[str, Callable[[], object]] = {
        "catalog.toml": lambda: parse_catalog(data.decode(), path),
        "mdl.lock": lambda: parse_lock(data.decode()),
        "releases.json": lambda: from_json(data),
        "ready.ready": lambda: all(map(_is_whole, json.loads(data)["models"].values())),
        "metrics.prom": lambda: data.endswith(b"\n") and data.count(b"# TYPE mdl_prefetch_") >= 9,
        "journal": lambda: (journal.load(path), True),
        "main": lambda: re.fullmatch(rb"[0-9a-f]{40}", data),
        RECORD: lambda: not data or _is_whole_record(path),
        ".tar": lambda: _is_whole_bundle(path),
        ".sha256sums": lambda: all(_is_listed(path, line) for line in data.decode().splitlines()),
        ".json": lambda: crc_json.loads(data.rstrip(b"\n")) or path.parent.name != "listings",
    }
    look = checks.get(path.name) or checks.get(path.suffix) or (lambda: True)
    return "" if look() else "damaged"


def _is_whole_record(path: Path) -> bool:
    """It says which model it is of, and every byte of it can be read."""
    receipts = Receipts(path.parents[1])
    models = [model for model in receipts.models() if record_name(model) == path.parent.name]
    return len(models) == 1 and not receipts.useless(models[0])[1]


def _is_whole(model: str) -> bool:
    """Every file of a model is there: a program that waits for the ready file relies on it."""
    models, name = Path(model).parent.parent, Path(model).name
    return all((models / one).is_file() for one in _KNOWN if one.startswith(f"models/{name}/"))


def _is_whole_bundle(path: Path) -> bool:
    """Every file of a bundle is in it and has the digest that it lists."""
    with tarfile.open(path) as tar:
        found = {one.name.partition("/")[2]: hashlib.sha256(_bytes_of(tar, one)).hexdigest() for one in tar}
        sums = _bytes_of(tar, tar.getmember("mdl-bundle/SHA256SUMS")).decode()
    listed = {}
    for line in sums.splitlines():
        digest, name = line.split("  ", 1)
        listed[name] = digest
    return listed == {name: digest for name, digest in found.items() if name != "SHA256SUMS"}


def _bytes_of(tar: tarfile.TarFile, one: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(one)
    assert file is not None
    return file.read()


def _is_listed(sums: Path, line: str) -> bool:
    """A part of a bundle is there and has the digest that the list has of it."""
    digest, name = line.split("  ", 1)
    return hashlib.sha256(sums.with_name(name).read_bytes()).hexdigest() == digest
