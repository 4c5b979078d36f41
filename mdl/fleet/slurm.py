"""Slurm: one batch job with one task on each node, which Slurm places, restarts and cancels.

The job and its answers are in a folder that all nodes see: one file a node, so that progress can be told and a node
that dies hides no other. ``sbatch --wait`` tells if the job ends in another way than by its own last line.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mdl import places
from mdl.errors import Cancelled, NetworkError, UsageError, storage_error
from mdl.fleet.engine import Nodes
from mdl.fleet.slurm_job import job_script
from mdl.fleet.work import Answer, Work
from mdl.formatting import counted

_LOOK_SECONDS = 0.5
_OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
"""The states of jobs that are over; Slurm tells of them for some minutes."""
_EACH = 4
"""How many looks there are to one question to Slurm, once ``sbatch`` has ended."""
_ASK_SECONDS = 15.0
"""How often Slurm is asked why a job does not begin."""
_OLD_SECONDS = 86400.0
"""After this the folder of a job that Slurm does not have any more is nobody's."""
_LAG_SECONDS = 60.0
"""How long what a node has written may take until it is seen here, as on NFS."""


def open_engine(nodes: Nodes) -> Slurm:
    """Raises `UsageError` if it is not said how many nodes, or there is no Slurm here."""
    if nodes.count is None and not nodes.hosts:
        raise UsageError("how many nodes?", item="--on slurm", hint="--nodes N, or --hosts a,b,c")
    hosts = _each(nodes.hosts, nodes.environ) if nodes.hosts else ()
    if nodes.count and nodes.count < len(hosts):
        raise UsageError(f"--hosts names {len(hosts)} nodes, and --nodes says {nodes.count}", item="--nodes")
    return Slurm(replace(nodes, hosts=hosts))


def _each(hosts: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes that are meant, each once: Slurm writes ``n[1-4]`` for four. Raises `UsageError`."""
    asked = _call(["scontrol", "show", "hostnames", ",".join(hosts)], environ)
    if asked.returncode:
        raise UsageError(asked.stderr.strip() or "these are no nodes", item="--hosts")
    return tuple(dict.fromkeys(asked.stdout.split()))


class Slurm:
    """An `Engine`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.goes_on, self.waiting = "", set[str]()

    @property
    def count(self) -> int:
        return self._nodes.count or len(self._nodes.hosts)

    def run(self, work: Work) -> Generator[Answer]:
        """See `Engine.run`."""
        folder = self._folder()
        try:
            (folder / "node.sh").write_text(work.script())
            (folder / "job.sh").write_text(job_script(work, str(folder), self._nodes.fan_out))
            with (folder / "sbatch.err").open("wb") as errors:
                yield from self._follow(self._submit(folder, errors.fileno()), folder)
        except OSError as error:
            raise storage_error(error, str(folder)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self) -> Path:
        """A folder for this job, which nobody else can read."""
        shared = Path(self._nodes.shared).expanduser() if self._nodes.shared else places.state_dir() / "fleet"
        try:
            shared.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep(shared)
            return Path(tempfile.mkdtemp(prefix="mdl-fleet-", dir=shared.absolute()))
        except OSError as error:
            raise storage_error(error, str(shared)) from error

    def _sweep(self, shared: Path) -> None:
        """Remove the folders of jobs that are over, and whose mdl did not live to do it."""
        for old in shared.glob("mdl-fleet-*"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > _OLD_SECONDS and self._state(old.name)[0] in ("", *_OVER):
                    shutil.rmtree(old, ignore_errors=True)

    def _submit(self, folder: Path, errors: int) -> subprocess.Popen[bytes]:
        """Submit the job, which has the name of its folder."""
        words = ["sbatch", "--wait", f"--job-name={folder.name}", f"--chdir={folder}", "--requeue", "--no-kill"]
        words += [f"--nodes={self.count}", "--ntasks-per-node=1", "--signal=TERM@60", "--output=job.out"]
        words += [f"--nodelist={','.join(self._nodes.hosts)}"] if self._nodes.hosts else []
        try:
            process = subprocess.Popen(
                [*words, "job.sh"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._nodes.environ,
            )
        except FileNotFoundError as error:
            raise _absent("sbatch") from error
        self._nodes.note(f"submitted to Slurm as {folder.name}; it waits for {counted(self.count, 'node')}")
        return process

    def _follow(self, waiting: subprocess.Popen[bytes], folder: Path) -> Iterator[Answer]:
        """Every answer as it comes, those of a restarted job too, until the job has ended."""
        last, told, looks = -1, set[str](), 0
        asked, why = time.monotonic() - 0.9 * _ASK_SECONDS, ""  # it is not in the queue at once
        try:
            while True:
                looks += waiting.poll() is not None
                is_over = looks > 1 and looks % _EACH == 0 and self._state(folder.name)[0] in ("", *_OVER)
                is_over = is_over and (waiting.returncode != 0 or looks > _LAG_SECONDS / _LOOK_SECONDS)
                run = _latest(folder)
                if run > last:
                    last, told, self.waiting = run, set(), {*_names(folder / str(run))}
                    self._nodes.note(f"Slurm's job {(folder / str(run) / 'job').read_text().strip()}")
                elif last < 0 and time.monotonic() - asked >= _ASK_SECONDS:
                    asked, why = time.monotonic(), self._waits(folder.name, why)
                is_over = is_over or (folder / str(last) / "ended").exists()
                for answer in _answers(folder / str(last), told):
                    told.add(answer.node)
                    self.waiting.discard(answer.node)
                    yield answer
                if is_over:
                    break
                self._nodes.cancel.wait(_LOOK_SECONDS)
        finally:
            waiting.terminate()
            waiting.wait()
            if not (folder / str(last) / "ended").exists():
                (folder / "node.sh").unlink(missing_ok=True)  # without it the job does not restart itself
                self.goes_on = _cancel(folder.name, self._nodes.environ)
        yield from self._silent(folder, last, told, waiting.returncode)

    def _state(self, name: str) -> tuple[str, str]:
        """The state of a job in Slurm's word, and why it waits; two empty texts if Slurm has none of that name, and
        ``?`` if it does not answer. ``sbatch`` also ends while a job is queued again."""
        words = ["squeue", "--noheader", "--states=all", f"--name={name}", "--format=%T %r"]
        asked = _call(words, self._nodes.environ)
        if asked.returncode:
            return "?", ""
        state, _, why = asked.stdout.strip().partition(" ")
        return state, why

    def _waits(self, name: str, known: str) -> str:
        """Why the job does not begin, which is told if it is not ``known``. Raises `Cancelled` if it will not."""
        state, why = self._state(name)
        if state == "CANCELLED":
            raise Cancelled("Slurm's job was cancelled", terminated=True)
        if state != "PENDING" or why in ("None", known):
            return known
        self._nodes.note(f"the job waits: Slurm says {why}")
        return why

    def _silent(self, folder: Path, last: int, told: set[str], code: int) -> Iterator[Answer]:
        """The nodes of the last run that did not answer, and those of earlier ones that it did without. Raises
        `MdlError` if there never was one."""
        words = (folder / "sbatch.err").read_text(errors="replace").strip().replace("sbatch: error: ", "")
        if last < 0:
            if words:
                raise UsageError(words, item="sbatch", hint="see sinfo and squeue")
            hint = f"all nodes must see {folder.parent}; --shared names another folder"
            raise NetworkError(f"the job ended ({code}), and no node has answered", item="sbatch", hint=hint)
        names = _names(folder / str(last))
        log = (folder / "job.out").read_text(errors="replace").replace("srun: error: ", "").strip().splitlines()
        for name in names:
            if name not in told:
                about = [line for line in log if re.search(rf"\b{re.escape(name)}\b", line)] or log
                yield Answer(name, None, err=about[-1] if about else "the job ended before it answered")
        for run in range(last):
            for answer in _answers(folder / str(run), {*names}):
                yield replace(answer, replaced_by="the restarted job")


def _latest(folder: Path) -> int:
    """The number of the run that began last; -1 if none did."""
    runs = [int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / "job").exists()]
    return max(runs, default=-1)


def _names(run: Path) -> list[str]:
    return (run / "nodes").read_text().split() if (run / "nodes").exists() else []


def _answers(run: Path, without: Collection[str]) -> Iterator[Answer]:
    """What the nodes of one run have answered so far, but for those ``without``."""
    for path in sorted(path for path in run.glob("*.code") if path.stem not in without):
        code, _, seconds = path.read_text().strip().partition(" ")
        if not (code.isdecimal() and seconds.isdecimal()):
            continue  # that of a full disk is empty
        out, err = (path.with_suffix(ending).read_text(errors="replace") for ending in (".out", ".err"))
        yield Answer(path.stem, int(code), out, err, float(seconds))


def _cancel(name: str, environ: Mapping[str, str]) -> str:
    """Cancel the job of that name, if there still is one. Returns what to do if Slurm did not."""
    try:
        asked = _call(["scancel", f"--name={name}"], environ)
    except UsageError as error:
        return f"the job may go on: {error.message}"
    why = asked.stderr.strip().removeprefix("scancel: error: ")
    return f"the job may go on ({why}); cancel it: scancel --name={name}" if asked.returncode else ""


def _call(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What a program of Slurm says. Raises `UsageError` if it is not there."""
    try:
        return subprocess.run(words, env=environ, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise _absent(words[0]) from error


def _absent(program: str) -> UsageError:
    return UsageError("it is not installed here", item=program, hint="run this where Slurm is")
