"""Every command killed with SIGKILL before each single call that changes the disk: fsync, rename, unlink and the like.

The claims, for each call: right after the kill no final name has wrong bytes, and every catalog, lock, record, receipt
and archive is whole; the same command again ends with 0 and with exactly the files of a run that nobody disturbed,
nothing beside them but what is in mdl's own folders; and it is never sent again what a journal had claimed.

Calls are counted over all threads of the command, by seccomp and ptrace: strace counts each thread for itself, so that
a worker's first rename, which publishes, would hide behind the main thread's first, which writes the job's record.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nginx import SKIPPED
from release import Scene
from runs import claim, machine, table
from scene import environment, folder, skip

from mdl.archive.history import from_json
from mdl.archive.limits import Limits
from mdl.archive.manifest import NAME
from mdl.archive.reader import Archive
from mdl.archive.releases import Shelf
from mdl.catalog.lock import Lock
from mdl.catalog.read import parse_catalog
from mdl.demo.content import hex_digest
from mdl.demo.hub import Generated, LoopbackHub, Repo
from mdl.download import journal
from mdl.download.receipts import readable
from mdl.jobs.records import Records
from mdl.owner import process_of
from mdl.sealed import parse_line

# --- killing at a call -----------------------------------------------------------------------------------------------

_CALLS = {  # name: its numbers on x86_64 and aarch64, and what its arguments are: p path, d folder of the next, f file
    "rename": (82, -1, "pp"),
    "renameat": (264, 38, "dpdp"),
    "renameat2": (316, 276, "dpdp"),
    "unlink": (87, -1, "p"),
    "unlinkat": (263, 35, "dp"),
    "rmdir": (84, -1, "p"),
    "link": (86, -1, "pp"),
    "linkat": (265, 37, "dpdp"),
    "symlink": (88, -1, "pp"),
    "symlinkat": (266, 36, "pdp"),
    "mkdir": (83, -1, "p"),
    "mkdirat": (258, 34, "dp"),
    "ftruncate": (77, 46, "f"),
    "fsync": (74, 82, "f"),
    "fdatasync": (75, 83, "f"),
}
_MACHINE = platform.machine()
_KINDS = {(arm if _MACHINE == "aarch64" else x86): (name, kinds) for name, (x86, arm, kinds) in _CALLS.items()}
_KINDS.pop(-1, None)
_TRACEME, _CONT, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 7, 0x4200, 0x420E
_FOLLOW = 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
"""PTRACE_O_TRACE: FORK, VFORK, CLONE, EXEC, SECCOMP; and EXITKILL."""
_EVENT_SECCOMP, _SECCOMP, _NO_NEW_PRIVS = 7, 22, 38
_ALL, _OWN_CHILDREN = 0x40000000, 0x20000000
"""For waitpid: __WALL, also threads; __WNOTHREAD, only those of the thread that traces."""
_PATIENCE = 120.0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True)
class Ended:
    """How a traced command ended: its code, how many calls it came to, and which one it was killed at, if it was."""

    code: int
    calls: int
    point: str = ""


def _filter() -> bytes:
    """A seccomp program: the calls of `_KINDS` stop for the tracer, all others pass."""
    load, same, give = 0x20, 0x15, 0x06
    rules = [(load, 0, 0, 0)]
    for number in sorted(_KINDS):
        rules += [(same, 0, 1, number), (give, 0, 0, 0x7FF00000)]
    return b"".join(struct.pack("<HBBI", *rule) for rule in [*rules, (give, 0, 0, 0x7FFF0000)])


def _be_traced() -> None:
    """In the child, before it becomes the command."""
    code = _filter()
    held = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(held)))
    if (
        _libc.ptrace(_TRACEME, 0, None, None)
        or _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        or _libc.prctl(_SECCOMP, 2, program, 0, 0)
    ):
        raise OSError(ctypes.get_errno(), "no tracing here")


@dataclass(frozen=True)
class Nudge:
    """A signal sent on the way, as soon as ``when`` holds; only the calls after it count."""

    number: signal.Signals
    when: Callable[[], bool]

    def give(self, process: subprocess.Popen[bytes], given: threading.Event) -> None:
        while process.returncode is None and not self.when():
            time.sleep(0.1)
        given.set()
        if process.returncode is None:
            os.kill(process.pid, self.number)


def killed_at(
    number: int, command: Sequence[str], env: dict[str, str], cwd: Path, output: Path, nudge: Nudge | None = None
) -> Ended:
    """Run a command and kill it before its ``number``-th call, counted over all its threads; 0 never."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=_be_traced
        )
    counting = threading.Event()
    if nudge:
        threading.Thread(target=nudge.give, args=(process, counting), daemon=True).start()
    else:
        counting.set()
    watchdog = threading.Timer(_PATIENCE, os.kill, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        return _traced(process, number, counting)
    finally:
        watchdog.cancel()


def _traced(process: subprocess.Popen[bytes], number: int, counting: threading.Event) -> Ended:
    os.waitpid(process.pid, _ALL)
    _libc.ptrace(_SETOPTIONS, process.pid, None, _FOLLOW)
    _libc.ptrace(_CONT, process.pid, None, None)
    calls, point = 0, ""
    while True:
        thread, status = os.waitpid(-1, _ALL | _OWN_CHILDREN)
        if not os.WIFSTOPPED(status):
            if thread == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return Ended(process.returncode, calls, point)
            continue
        event, given = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP and counting.is_set():
            calls += 1
            if calls == number:
                point = _described(thread)
                os.kill(process.pid, signal.SIGKILL)
                continue
        _libc.ptrace(_CONT, thread, None, given if not event and given != signal.SIGSTOP else None)


def _described(thread: int) -> str:
    """The call a thread is about to make, with its paths."""
    info = ctypes.create_string_buffer(88)
    _libc.ptrace(_GET_SYSCALL_INFO, thread, 88, info)
    number, *arguments = struct.unpack_from("<7Q", info.raw, 24)
    name, layout = _KINDS[number]
    words, base = [], ""
    for kind, value in zip(layout, arguments, strict=False):
        if kind == "p":
            words.append(f"{base}{_text(thread, value)}")
        else:
            at = ctypes.c_int(value & 0xFFFFFFFF).value
            base = f"{os.readlink(f'/proc/{thread}/fd/{at}')}/" if at >= 0 else ""
            words += [base[:-1]] if kind == "f" else []
    return f"{name} {' '.join(words)}"


def _text(thread: int, address: int) -> str:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return os.fsdecode(memory.read(1024).split(b"\0")[0])


def tracing_works(place: Path) -> bool:
    """Whether a command can be killed at a call here."""
    if _MACHINE not in ("x86_64", "aarch64") or sys.platform != "linux":
        return False
    try:
        command = [sys.executable, "-c", "import os; os.mkdir('a'); os.mkdir('b')"]
        ended = killed_at(2, command, dict(os.environ), place, place / "try")
    except (OSError, subprocess.SubprocessError):
        return False
    return (ended.code, (place / "a").is_dir(), (place / "b").is_dir()) == (-signal.SIGKILL, True, False)


# --- the stage -------------------------------------------------------------------------------------------------------

_PACE, _SLOW = 12 * 2**20, 2**17
"""Bytes a second: enough time for several claims; and slow enough to be paused on the way."""
_SIZE = 4 * 2**20
ONE = Repo("bench/one", {"config.json": b"{}\n", "model.bin": Generated(_SIZE, "one")})
TWIN = Repo("bench/twin", {"copy.bin": Generated(_SIZE, "one")})
LONG = Repo("bench/long", {"config.json": b"[]\n", "model.bin": Generated(5 * _SIZE, "long")})
_DAMAGED = 17 * 2**20
_DIRECT = b"nobody published a digest of this\n" * 99
_KNOWN = {
    f"models/{repo.id[6:]}/{path}": hex_digest(content, "sha256")
    for repo in (ONE, TWIN, LONG)
    for path, content in repo.files.items()
} | {"models/direct/direct.bin": hex_digest(_DIRECT, "sha256")}
_OWN = re.compile(r"(models|cache/\.locks|service)/\.mdl(/|$)|cache/\.locks$|home(/|$)|served(/|$)|out\.log")
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
url = "http://127.0.0.1:{port}/direct.bin"

[groups]
both = ["one", "twin"]
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Stage:
    """A place of its own for one kill: a hub, a server of one file, a home, a catalog. ``job`` is its job's id."""

    def __init__(self, place: Path, scene: Scene, over: set[str], stack: ExitStack) -> None:
        self.place, self.scene, self.over, self.job = place, scene, over, ""
        served = place / "served"
        served.mkdir(parents=True)
        (served / "direct.bin").write_bytes(_DIRECT)
        os.utime(served / "direct.bin", (10**9, 10**9))
        self.hub = stack.enter_context(LoopbackHub([ONE, TWIN, LONG], bytes_per_second=_PACE))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served)))
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        (place / "catalog.toml").write_text(_CATALOG.format(port=server.server_address[1]))
        self.env = environment(place / "home") | {"HF_ENDPOINT": self.hub.url, "MDL_HOME": str(place / "models")}
        self.env |= {"MDL_CONNECTIONS": "1", "MDL_CATALOG": str(place / "catalog.toml"), "MDL_PROGRESS": "none"}
        stack.callback(self._end_jobs)

    def _end_jobs(self) -> None:
        """What still runs in the background, of this stage alone."""
        for job in self.records([]).all():
            if job.status == "running" and process_of(job.owner):
                os.kill(process_of(job.owner), signal.SIGKILL)

    def command(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "mdl", *(word.replace("{job}", self.job) for word in words)]

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self.command(words),
            env=self.env,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
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
        return _SIZE - max((record.have.total for record in found if record), default=0)

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


_BLOB = f"models--bench--one/blobs/{ONE.stored['model.bin'].sha256}"
_USELESS = re.compile(r"\.mdl-tmp|/partials/|/side/")


def _mark(path: Path) -> str:
    """What a file is compared by: its bytes; of what bears the time only that it is there."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_dir() or path.suffix in (".prom", ".ready"):
        return "there"
    data = path.read_bytes()
    if path.name == "releases.json":
        history = Shelf(path.parent).history()
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
        with Archive(path, Limits()) as archive, open(os.devnull, "wb") as null:
            for member in archive.members:
                list(archive.copy(member, null.fileno()))
    checks: dict[str, Callable[[], object]] = {
        "catalog.toml": lambda: parse_catalog(data.decode(), path),
        "mdl.lock": lambda: Lock.from_toml(data.decode()),
        "releases.json": lambda: from_json(data),
        "ready.ready": lambda: all(map(_is_whole, json.loads(data)["models"].values())),
        "metrics.prom": lambda: data.endswith(b"\n") and data.count(b"# TYPE mdl_prefetch_") >= 9,
        "journal": lambda: (journal.load(path), True),
        "main": lambda: re.fullmatch(rb"[0-9a-f]{40}", data),
        ".receipt": lambda: readable(path),
        ".json": lambda: parse_line(data.rstrip(b"\n")) or path.parent.name != "listings",
    }
    look = checks.get(path.name) or checks.get(path.suffix) or (lambda: True)
    return "" if look() else "damaged"


def _is_whole(model: str) -> bool:
    """Every file of a model is there, as whoever waits for the ready file may rely on."""
    models, name = Path(model).parent.parent, Path(model).name
    return all((models / one).is_file() for one in _KNOWN if one.startswith(f"models/{name}/"))


# --- the commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """``words`` are killed and run again, after ``prepare``; the re-run of what was done already ends with ``done``.

    With a ``nudge``, which is answered with ``code``, it is killed after that. ``resumes``: what a journal claims is
    not sent again. ``long``: not in the short run, as another one goes the same way.
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Stage], object] = lambda _stage: None
    done: int = 0
    nudge: signal.Signals | None = None
    code: int = 0
    resumes: bool = True
    long: bool = False


def _damage(stage: Stage) -> None:
    stage.hub.bytes_per_second = None
    stage.must("get", "long")
    stage.hub.bytes_per_second = _PACE
    (stage.place / "models/long/config.json").unlink()
    with (stage.place / "models/long/model.bin").open("rb+") as file:
        file.seek(_DAMAGED)
        file.write(b"damaged")


def _slow(stage: Stage) -> None:
    stage.hub.bytes_per_second = _SLOW


def _begin(stage: Stage) -> None:
    """A job on its way in the background: the small file is there, the large one is coming."""
    _slow(stage)
    stage.job = stage.must("get", "one", "--detach")
    until = time.monotonic() + 60
    while not ((stage.place / "models/one/config.json").exists() and stage.needed < _SIZE):
        assert time.monotonic() < until, "the job does not come along"
        time.sleep(0.1)


def _paused(stage: Stage) -> None:
    _begin(stage)
    stage.must("jobs", "pause", stage.job)
    stage.hub.bytes_per_second = _PACE


def _trained(stage: Stage) -> None:
    model = stage.place / "runs/tts/model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}\n")
    (model / "model.bin").write_bytes(bytes(range(256)) * 2**13)


def _served(stage: Stage) -> None:
    shutil.copytree(stage.scene.base, stage.place / "service", symlinks=True)


def _archive(stage: Stage) -> None:
    shutil.copy(stage.scene.place / "c.zip", stage.place)


def _service(stage: Stage) -> None:
    _served(stage)
    _archive(stage)


COMMANDS = (
    Command("get", ("get", "one")),
    Command("get, locked", ("get", "one", "--locked"), lambda stage: stage.must("lock", "one"), long=True),
    Command("get, first use", ("get", "direct"), lambda stage: stage.must("lock", "direct")),
    Command("get, hub cache", ("get", "one", "--layout", "hf-cache", "--to", "cache")),
    Command("get, linked", ("get", "twin"), lambda stage: stage.must("get", "one")),
    Command("get, being paused", ("get", "one"), _slow, nudge=signal.SIGUSR1, code=75),
    Command("get, being cancelled", ("get", "one"), _slow, nudge=signal.SIGTERM, code=143, long=True),
    Command("verify --repair", ("verify", "long", "--repair"), _damage, resumes=False),
    Command("prefetch", ("prefetch", "both", "--metrics", "metrics.prom", "--ready-file", "ready.ready")),
    Command("jobs pause", ("jobs", "pause", "{job}"), _begin, long=True),
    Command("jobs cancel", ("jobs", "cancel", "{job}"), _begin, long=True),
    Command("jobs cancel, paused", ("jobs", "cancel", "{job}"), _paused, long=True),
    Command("jobs resume", ("jobs", "resume", "{job}"), _paused, 2),
    Command("jobs clean", ("jobs", "clean", "--older-than", "0s"), lambda stage: stage.must("get", "one"), long=True),
    Command("add", ("add", "new", "hf:bench/one", "--tag", "x"), done=2),
    Command("remove", ("remove", "twin"), done=3, long=True),
    Command("lock", ("lock", "one", "long")),
    Command("lock --upgrade", ("lock", "--upgrade", "one"), lambda stage: stage.must("lock", "one"), long=True),
    Command("pack", ("pack", "runs/tts", "-o", "out.zip"), _trained),
    Command("unpack", ("unpack", "c.zip", "--to", "unpacked"), _archive, 7),
    Command("unpack --release", ("unpack", "c.zip", "--to", "service", "--release", "--keep", "1"), _service),
    Command("rollback", ("rollback", "service"), _served, 3),
)


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves when nobody kills it, how many calls it makes, and what it is sent."""

    names: dict[str, str]
    calls: int
    sent: int


@dataclass(frozen=True)
class Found:
    """One kill: the call, what is wrong then or after the command was run again, what is left in mdl's own folders."""

    number: int
    point: str = ""
    wrong: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Sweep:
    """All commands below one folder."""

    def __init__(self, place: Path) -> None:
        self._place = place
        (place / "scene").mkdir()
        self._scene = Scene(place / "scene")

    @contextlib.contextmanager
    def _stage(self, command: Command, name: str) -> Iterator[Stage]:
        place = self._place / re.sub("[^a-z]+", "-", command.name) / name
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            over = {"dead", "paused", "cancelled"} if command.nudge else {"dead"}
            stage = Stage(place, self._scene, over, stack)
            command.prepare(stage)
            yield stage

    def _killed(self, stage: Stage, command: Command, number: int) -> Ended:
        nudge = Nudge(command.nudge, lambda: stage.needed < _SIZE) if command.nudge else None
        words, output = stage.command(command.words), stage.place / "out.log"
        return killed_at(number, words, stage.env, stage.place, output, nudge)

    def undisturbed(self, command: Command) -> Undisturbed:
        with self._stage(command, "whole") as stage:
            before = len(stage.hub.requests)
            ended = self._killed(stage, command, 0)
            said, wrong = (stage.place / "out.log").read_text()[-500:], stage.wrong()
            assert ended.code == command.code, f"{command.name} ends with {ended.code} by itself: {said}"
            assert not wrong, f"{command.name}: {wrong}"
            if command.nudge:
                stage.hub.bytes_per_second = _PACE
                stage.must(*command.words)
            return Undisturbed(stage.names(), ended.calls, stage.sent(before))

    def kill(self, command: Command, number: int, whole: Undisturbed) -> Found:
        """Kill it before its ``number``-th call, look, run it again, look."""
        with self._stage(command, str(number)) as stage:
            before = stage.wrong()
            ended = self._killed(stage, command, number)
            if not ended.point:
                return Found(number)
            wrong = [f"after the kill: {one}" for one in stage.wrong() if one not in before]
            was, asked = stage.names(), len(stage.hub.requests)
            most = stage.needed if command.resumes else whole.sent
            stage.hub.bytes_per_second = _PACE
            again = stage.run(command.words)
            is_done = all(was.get(name) == mark for name, mark in whole.names.items())
            if again.returncode and not (again.returncode == command.done and is_done):
                wrong.append(f"the same command again ends with {again.returncode}: {again.stderr.strip()[-300:]}")
            wrong += [*stage.wrong(), *_compared(whole.names, stage.names())]
            if (sent := stage.sent(asked)) > most:
                ranges = [one.headers.get("range") for one in stage.hub.requests[asked:] if one.origin == "cdn"]
                wrong.append(f"{sent} bytes were sent again, {most} were needed: asked for {ranges}")
            point, *short = [_short(text, stage.place) for text in (ended.point, *wrong)]
            return Found(number, point, tuple(short), tuple(stage.left()))

    def run(self, commands: Sequence[Command], at_once: int, *, short: bool) -> dict[str, list[Found]]:
        """Every point of every command until it ends by itself; ``short``: one point in 40, another one each time."""
        with ThreadPoolExecutor(at_once) as pool:
            wholes = dict(zip(commands, pool.map(self.undisturbed, commands), strict=True))
            points = [(one, number) for one, whole in wholes.items() for number in range(1, whole.calls + 1)]
            if short:
                points = [
                    (one, 1 + int(whole.calls * (share + part) / _parts(whole.calls)))
                    for share, (one, whole) in zip(itertools.cycle(_SHARES), wholes.items(), strict=False)
                    for part in range(_parts(whole.calls))
                ]
            kills = []
            for kill in pool.map(lambda point: self.kill(point[0], point[1], wholes[point[0]]), points):
                kills.append(kill)
                if len(kills) % 20 == 0:
                    print(f"{len(kills)} of some {len(points)} points", file=sys.stderr)
        found = {one.name: [kill for (of, _), kill in zip(points, kills, strict=True) if of is one] for one in commands}
        for one in () if short else commands:
            while (more := found[one.name]) and more[-1].point:
                more.append(self.kill(one, more[-1].number + 1, wholes[one]))
        return found


_SHARES = (0.9, 0.5, 0.7, 0.3)


def _parts(calls: int) -> int:
    """How many points of a command are in the short run."""
    return min(calls, 1 + calls // 40)


def _compared(whole: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    """How a folder differs from that of an undisturbed run."""
    for name in sorted(whole.keys() | now.keys()):
        if name not in whole:
            yield f"left over: {name}"
        elif whole[name] != now.get(name, "nothing"):
            yield f"{name}: {now.get(name, 'nothing')} instead of {whole[name]}"


def _short(text: str, place: Path) -> str:
    """Without what differs from run to run."""
    text = re.sub("[0-9a-f]{12}-[0-9]+-[0-9]+", "<owner>", text.replace(f"{place}/", "").replace(str(place), "."))
    return re.sub(r"\b[0-9a-f]{12,64}\b", "<hex>", text)


def tell(found: dict[str, list[Found]]) -> None:
    """A row for each command, then each failure with its points."""
    rows = []
    for name, kills in found.items():
        killed = [one for one in kills if one.point]
        left = Counter(re.sub(".*/.mdl/|home/.*/mdl/", "", one) for kill in killed for one in kill.left)
        bad = [one for one in killed if one.wrong]
        shown = ", ".join(f"{count} x {what}" for what, count in sorted(left.items())) or "nothing"
        rows.append([name, *map(str, (len(killed), len(killed) - len(bad), len(bad))), shown])
    table(("command", "points", "recovered", "failed", "left in mdl's own folders"), rows)
    print()
    for name, kills in found.items():
        by_trouble: dict[str, list[Found]] = {}
        for kill in kills:
            for why in kill.wrong:
                by_trouble.setdefault(why, []).append(kill)
        for why, where in by_trouble.items():
            print(f"FAILED: {name}: {why}")
            print(*(f"    killed before call {one.number}: {one.point}" for one in where), sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--short", action="store_true", help="for every change: some 20 points, spread over most commands"
    )
    parser.add_argument("--at-once", type=int, default=2, help="kills going on at the same time [2]")
    parser.add_argument("--dir", type=Path, help="folder on the disk to use [the system's temporary folder]")
    parser.add_argument("command", nargs="*", help=f"only these: {'; '.join(one.name for one in COMMANDS)}")
    args = parser.parse_args()
    commands = [one for one in COMMANDS if one.name in args.command or not (args.command or (args.short and one.long))]
    with folder(args.dir) as place:
        if not tracing_works(place):
            skip("nothing can be traced and killed at a call here", SKIPPED)
        found = Sweep(place).run(commands, args.at_once, short=args.short)
    tell(found)
    kills = [one for many in found.values() for one in many if one.point]
    print(f"{machine()}")
    bad = sum(bool(one.wrong) for one in kills)
    return (
        0 if claim(f"{len(kills)} kills, {len(kills) - bad} recovered, {bad} did not", bool(kills) and not bad) else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
