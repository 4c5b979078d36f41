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
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path

from mdl import places
from mdl.errors import MdlError, NetworkError, UsageError, storage_error
from mdl.fleet.engine import Nodes
from mdl.fleet.slurm_job import job_script
from mdl.fleet.work import Answer, Work

_LOOK_SECONDS = 0.5
_EACH = 4
"""How many looks there are to one question to Slurm, once ``sbatch`` has ended."""
_LAG_SECONDS = 60.0
"""How long what a node has written may take until it is seen here, as on NFS."""


def open_engine(nodes: Nodes) -> Slurm:
    """Raises `UsageError` if it is not said how many nodes."""
    if nodes.count is None and not nodes.hosts:
        raise UsageError("how many nodes?", item="--on slurm", hint="--nodes N, or --hosts a,b,c")
    return Slurm(nodes)


class Slurm:
    """An `Engine`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

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
            return Path(tempfile.mkdtemp(prefix="mdl-fleet-", dir=shared.absolute()))
        except OSError as error:
            raise storage_error(error, str(shared)) from error

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
            raise UsageError("it is not installed here", item="sbatch", hint="run this where Slurm is") from error
        self._nodes.note(f"submitted to Slurm as {folder.name}; it waits for {self.count} nodes")
        return process

    def _follow(self, waiting: subprocess.Popen[bytes], folder: Path) -> Iterator[Answer]:
        """Every answer as it comes, those of a restarted job too, until the job has ended."""
        last, told, looks = -1, set[str](), 0
        try:
            while True:
                looks += waiting.poll() is not None
                is_over = looks > 1 and looks % _EACH == 0 and not self._is_queued(folder.name)
                is_over = is_over and (waiting.returncode != 0 or looks > _LAG_SECONDS / _LOOK_SECONDS)
                run = _latest(folder)
                if run > last:
                    last, told = run, set()
                    self._nodes.note(f"Slurm's job {(folder / str(run) / 'job').read_text().strip()}")
                is_over = is_over or (folder / str(last) / "ended").exists()
                for answer in _answers(folder / str(last), told):
                    told.add(answer.node)
                    yield answer
                if is_over:
                    break
                self._nodes.cancel.wait(_LOOK_SECONDS)
        finally:
            waiting.terminate()
            waiting.wait()
            if not (folder / str(last) / "ended").exists():
                (folder / "node.sh").unlink(missing_ok=True)  # without it the job does not restart itself
                _cancel(folder.name, self._nodes.environ)
        yield from self._silent(folder, last, told, waiting.returncode)

    def _is_queued(self, name: str) -> bool:
        """Whether Slurm still has the job: ``sbatch`` also ends while a job is queued again, or if Slurm does not
        answer."""
        words = ["squeue", "--noheader", f"--name={name}", "--format=%T"]
        asked = subprocess.run(words, env=self._nodes.environ, capture_output=True, text=True, check=False)
        return asked.returncode != 0 or bool(asked.stdout.strip())

    def _silent(self, folder: Path, last: int, told: set[str], code: int) -> Iterator[Answer]:
        """The nodes of the last run that did not answer, and those of earlier ones that it did without. Raises
        `MdlError` if there never was one."""
        words = (folder / "sbatch.err").read_text(errors="replace").strip().replace("sbatch: error: ", "")
        if last < 0:
            kind: type[MdlError] = UsageError if words else NetworkError
            raise kind(words or f"the job ended without a word ({code})", item="sbatch", hint="see sinfo and squeue")
        names = _names(folder / str(last))
        log = (folder / "job.out").read_text(errors="replace").replace("srun: error: ", "").strip().splitlines()
        for name in names:
            if name not in told:
                about = [line for line in log if re.search(rf"\b{re.escape(name)}\b", line)] or log
                yield Answer(name, None, err=about[-1] if about else "the job ended before it answered")
        for run in range(last):
            for answer in _answers(folder / str(run), {*names}):
                yield Answer(**vars(answer) | {"replaced_by": "the job when it was restarted"})


def _latest(folder: Path) -> int:
    """The number of the run that began last; -1 if none did."""
    runs = [int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / "job").exists()]
    return max(runs, default=-1)


def _names(run: Path) -> list[str]:
    return (run / "nodes").read_text().split() if (run / "nodes").exists() else []


def _answers(run: Path, without: Collection[str]) -> Iterator[Answer]:
    """What the nodes of one run have answered so far, but for those ``without``."""
    for path in sorted(path for path in run.glob("*.code") if path.stem not in without):
        code, seconds = path.read_text().split()
        out, err = (path.with_suffix(ending).read_text(errors="replace") for ending in (".out", ".err"))
        yield Answer(path.stem, int(code), out, err, float(seconds))


def _cancel(name: str, environ: Mapping[str, str]) -> None:
    """Cancel the job of that name, if there still is one."""
    with contextlib.suppress(OSError):
        subprocess.run(["scancel", f"--name={name}"], env=environ, capture_output=True, check=False)
