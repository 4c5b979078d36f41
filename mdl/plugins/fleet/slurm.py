"""Slurm: one batch job with one task on each node, which Slurm places, restarts and cancels.

The job and its answers are in a folder that all nodes see: one file a node, so that progress can be told and a node
that dies hides no other. ``sbatch --wait`` tells if the job ends in another way than by its own last line.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mdl.bounds import (
    LARGEST_CHILD_OUTPUT,
    LARGEST_SMALL_FILE,
    LONGEST_QUOTE,
    parse_whole_number,
    whole_number,
)
from mdl.cancel import CancelToken
from mdl.config import places
from mdl.disk.child_output import Child, Said, output_of, read_ready
from mdl.disk.safe_open import make_folders, read_left
from mdl.errors import Cancelled, NetworkError, ProtocolError, UsageError, storage_error
from mdl.formatting import counted
from mdl.paths import shown
from mdl.plugins.fleet.cluster import Nodes, check_hosts
from mdl.plugins.fleet.work import Answer, Work

LOOK_SECONDS = 0.5
_OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
)
"""The states of jobs that are over; Slurm tells of them for some minutes."""
_EACH = 4
"""How many looks there are to one question to Slurm, once ``sbatch`` has ended."""
ASK_SECONDS = 15.0
"""How often Slurm is asked why a job does not begin."""
_OLD_SECONDS = 86400.0
"""After this the folder of a job that Slurm does not have any more is nobody's."""
_LAG_SECONDS = 60.0
"""How long what a node has written may take until it is seen here, as on NFS."""


def open_engine(nodes: Nodes) -> Slurm:
    """Raises `UsageError` if it is not said how many nodes, or there is no Slurm here."""
    if nodes.count is None and not nodes.hosts:
        raise UsageError("how many nodes?", item="--on slurm", hint="--nodes N, or --hosts a,b,c")
    hosts = _each(nodes.hosts, nodes.environ, nodes.cancel) if nodes.hosts else ()
    if nodes.count and nodes.count < len(hosts):
        raise UsageError(f"--hosts names {len(hosts)} nodes, and --nodes says {nodes.count}", item="--nodes")
    return Slurm(replace(nodes, hosts=hosts))


def _each(hosts: Sequence[str], environ: Mapping[str, str], cancel: CancelToken) -> tuple[str, ...]:
    """The nodes that are meant, each once: Slurm writes ``n[1-4]`` for four. Raises `UsageError`."""
    check_hosts(hosts)
    asked = _call(["scontrol", "show", "hostnames", ",".join(hosts)], environ, cancel)
    if asked.code:
        raise UsageError(asked.err.strip() or "these are no nodes", item="--hosts")
    found = tuple(dict.fromkeys(asked.out.split()))
    check_hosts(found)
    return found


class Slurm:
    """An `Engine`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.goes_on = ""
        self.waiting = set[str]()

    @property
    def count(self) -> int:
        return self._nodes.count or len(self._nodes.hosts)

    def run(self, work: Work) -> Generator[Answer]:
        """See `Engine.run`."""
        folder = self._folder()
        try:
            (folder / "node.sh").write_text(work.script())
            (folder / "job.sh").write_text(job_script(work, str(folder), self._nodes.fan_out))
            yield from self._follow(self._submit(folder), folder)
        except OSError as error:
            raise storage_error(error, str(folder)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self) -> Path:
        """A folder for this job, which nobody else can read."""
        shared = Path(self._nodes.shared).expanduser() if self._nodes.shared else places.state_dir() / "fleet"
        try:
            make_folders(shared)
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

    def _submit(self, folder: Path) -> Child:
        """Submit the job, which has the name of its folder."""
        words = ["sbatch", "--wait", f"--job-name={folder.name}", f"--chdir={folder}", "--requeue", "--no-kill"]
        words += [f"--nodes={self.count}", "--ntasks-per-node=1", "--signal=TERM@60", "--output=job.out"]
        if self._nodes.hosts:
            words.append(f"--nodelist={','.join(self._nodes.hosts)}")
        try:
            sbatch = Child([*words, "job.sh"], folder=folder, environ=self._nodes.environ, most=LARGEST_SMALL_FILE)
        except FileNotFoundError as error:
            raise _absent("sbatch") from error
        self._nodes.note(f"submitted to Slurm as {folder.name}; it waits for {counted(self.count, 'node')}")
        return sbatch

    def _follow(self, sbatch: Child, folder: Path) -> Iterator[Answer]:
        """Every answer as it comes, those of a restarted job too, until the job has ended."""
        last = -1
        told = set[str]()
        looks = 0
        asked = time.monotonic() - 0.9 * ASK_SECONDS  # it is not in the queue at once
        why = ""
        try:
            while True:
                if sbatch.is_over():
                    looks += 1
                is_over = self._has_ended(looks, sbatch, folder.name)
                run = max(_runs(folder), default=-1)
                if run > last:
                    last = run
                    told = set()
                    self.waiting = {*_names(folder / str(run))}
                    self._nodes.note(f"Slurm's job {shown(_words_in(folder / str(run) / 'job'))}")
                elif last < 0 and time.monotonic() - asked >= ASK_SECONDS:
                    asked = time.monotonic()
                    why = self._waits(folder.name, why)
                if (folder / str(last) / "ended").exists():
                    is_over = True
                for answer in _answers(folder / str(last), told):
                    told.add(answer.node)
                    self.waiting.discard(answer.node)
                    yield answer
                if is_over:
                    break
                read_ready([sbatch], 0.0, self._nodes.cancel)
                self._nodes.cancel.wait(LOOK_SECONDS)
        finally:
            sbatch.end()
            if not (folder / str(last) / "ended").exists():
                (folder / "node.sh").unlink(missing_ok=True)  # without it the job does not restart itself
                self.goes_on = _cancel(folder.name, self._nodes.environ)
        yield from self._silent(folder, last, told, sbatch)

    def _has_ended(self, looks: int, sbatch: Child, name: str) -> bool:
        """Whether the job has ended without its own last line. Slurm is asked now and then once ``sbatch`` has ended,
        which was seen at so many ``looks``: it also ends while a job is queued again."""
        if looks == 0 or looks % _EACH:
            return False
        if self._state(name)[0] not in ("", *_OVER):
            return False
        return sbatch.process.returncode != 0 or looks > _LAG_SECONDS / LOOK_SECONDS

    def _state(self, name: str) -> tuple[str, str]:
        """The state of a job in Slurm's word, and why it waits; two empty texts if Slurm has none of that name, and
        ``?`` if it does not answer."""
        words = ["squeue", "--noheader", "--states=all", f"--name={name}", "--format=%T %r"]
        asked = _call(words, self._nodes.environ, self._nodes.cancel)
        if asked.code:
            return "?", ""
        state, _, why = asked.out.strip().partition(" ")
        return shown(state)[:LONGEST_QUOTE], shown(why)[:LONGEST_QUOTE]

    def _waits(self, name: str, known: str) -> str:
        """Why the job does not begin, which is told if it is not ``known``. Raises `Cancelled` if it will not."""
        state, why = self._state(name)
        if state == "CANCELLED":
            raise Cancelled("Slurm's job was cancelled", terminated=True)
        if state != "PENDING" or why in ("None", known):
            return known
        self._nodes.note(f"the job waits: Slurm says {why}")
        return why

    def _silent(self, folder: Path, last: int, told: set[str], sbatch: Child) -> Iterator[Answer]:
        """The nodes of the last run that did not answer, and those of earlier ones that it did without. Raises
        `MdlError` if there never was one."""
        words = bytes(sbatch.err).decode(errors="replace").strip().replace("sbatch: error: ", "")
        code = sbatch.process.returncode
        if last < 0:
            if words:
                raise UsageError(words, item="sbatch", hint="see sinfo and squeue")
            hint = f"all nodes must see {folder.parent}; --shared names another folder"
            raise NetworkError(f"the job ended ({code}), and no node has answered", item="sbatch", hint=hint)
        names = _names(folder / str(last))
        log = _words_in(folder / "job.out").replace("srun: error: ", "").splitlines()
        for name in names:
            if name in told:
                continue
            why = log[-1] if log else "the job ended before it answered"
            for line in log:
                if re.search(rf"\b{re.escape(name)}\b", line):
                    why = line
            yield Answer(name, None, err=why)
        for run in _runs(folder):
            if run == last:
                break
            for answer in _answers(folder / str(run), names):
                yield replace(answer, replaced_by="the restarted job")


def _runs(folder: Path) -> list[int]:
    """The numbers of the runs that have begun, in order: Slurm counts the restarts of a job."""
    numbers = []
    for path in folder.iterdir():
        is_run = re.fullmatch(r"0|[1-9][0-9]{0,3}", path.name) and not path.is_symlink()
        if is_run and (path / "job").exists():
            numbers.append(int(path.name))
    return sorted(numbers)


def _owners(path: Path) -> set[int]:
    """Who may have written what lies in a folder of ours: this user, and the one that the file system says it is."""
    return {os.geteuid(), path.stat().st_uid}


def _words_in(path: Path) -> str:
    """What a node has left in a file of words; '' if there is none, or it is none that may be read."""
    try:
        return read_left(path, LARGEST_SMALL_FILE, _owners(path.parent)).decode(errors="replace").strip()
    except (OSError, ProtocolError):
        return ""


def _names(run: Path) -> list[str]:
    return _words_in(run / "nodes").split()


def _answers(run: Path, without: Collection[str]) -> Iterator[Answer]:
    """What the nodes of one run have answered so far, but for those ``without``."""
    for path in sorted(run.glob("*.code")):
        if path.stem in without:
            continue
        try:
            answer = _answer(path)
        except ProtocolError as error:
            answer = Answer(path.stem, None, fault=error.message)
        except OSError as error:
            answer = Answer(path.stem, None, fault=f"its answer cannot be read: {error.strerror or error}")
        if answer is not None:
            yield answer


def _answer(path: Path) -> Answer | None:
    """What a node has answered, of which ``path`` has the exit code; None if it has none, as on a full disk. Raises
    `ProtocolError`, `OSError`."""
    owners = _owners(path.parent)
    text = read_left(path, LARGEST_SMALL_FILE, owners).decode(errors="replace")
    if not text.strip():
        return None
    try:
        code, seconds = map(parse_whole_number, text.split())
        whole_number(code, most=255)
    except ValueError as error:
        raise ProtocolError(f"{shown(path.name)} has no exit code in it: {shown(text[:LONGEST_QUOTE])}") from error
    out = read_left(path.with_suffix(".out"), LARGEST_CHILD_OUTPUT, owners).decode(errors="replace")
    err = read_left(path.with_suffix(".err"), LARGEST_CHILD_OUTPUT, owners).decode(errors="replace")
    return Answer(path.stem, code, out, err, float(seconds))


def _cancel(name: str, environ: Mapping[str, str]) -> str:
    """Cancel the job of that name, if there still is one. Returns what to do if Slurm did not."""
    try:
        asked = _call(["scancel", f"--name={name}"], environ, CancelToken())
    except UsageError as error:
        return f"the job may continue: {error.message}"
    if not asked.code:
        return ""
    why = shown(asked.err.strip().removeprefix("scancel: error: "))[:LONGEST_QUOTE]
    return f"the job may continue ({why}); cancel it: scancel --name={name}"


def _call(words: Sequence[str], environ: Mapping[str, str], cancel: CancelToken) -> Said:
    """What a program of Slurm says. Raises `UsageError` if it is not there, `ProtocolError` if it says too much, and as
    ``cancel``."""
    try:
        said = output_of(words, environ=environ, cancel=cancel)
    except OSError as error:
        raise _absent(words[0]) from error
    if said.is_too_long:
        raise ProtocolError(f"it says more than {LARGEST_SMALL_FILE:,} bytes", item=words[0], hint="is it Slurm's own?")
    return said


def _absent(program: str) -> UsageError:
    return UsageError("it is not installed here", item=program, hint="run this where Slurm is")


_RESTARTS = 3
"""How often a job restarts itself."""
_JOB = """\
#!/bin/sh
folder={folder}
run="$folder/${{SLURM_RESTART_COUNT:-0}}"
mkdir -p "$run"
scontrol show hostnames "$SLURM_JOB_NODELIST" >"$run/nodes.part" && mv "$run/nodes.part" "$run/nodes"
echo "$SLURM_JOB_ID runs on $SLURM_JOB_NODELIST" >"$run/job.part" && mv "$run/job.part" "$run/job"
trap 'exit 143' TERM
on_all() {{ srun --no-kill --kill-on-bad-exit=0 --wait=0 --ntasks-per-node=1 --output=none "$@"; }}
{work}
again=
for answer in "$run"/*.code; do
    [ -f "$answer" ] && [ ! -h "$answer" ] || continue
    case "$(head -c 9 "$answer")" in "5 "*|"9 "*|"75 "*|"143 "*) again=1;; esac
done
if [ -n "$again" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ] && [ -e "$folder/node.sh" ]; then
    for wait in 1 2 5 10; do
        scontrol requeue "$SLURM_JOB_ID" && wait=60 # Slurm ends this script
        sleep "$wait" & wait
    done
fi
: >"$run/ended"
"""
_TASK = """\
place="$1/$SLURMD_NODENAME"
[ -e "$place.code" ] && exit
trap : TERM
{sweep}began=$(date +%s)
sh "$0" >"$place.out" 2>"$place.err" </dev/null
echo "$? $(($(date +%s) - began))" >"$place.part"
mv "$place.part" "$place.code"
"""
"""Runs the script ``$0`` on a node, with its answer in the folder ``$1``; the ``.code`` comes last, in one step."""
_SWEEP = """\
for old in {home}/.mdl-fleet-*; do [ -e "${{1%/*/*}}/${{old##*/.}}" ] || rm -rf "$old"; done
"""
"""Removes what jobs that were stopped have copied to this node: their folders beside that of this job are gone."""
_BROADCAST = """\
sh -c {task} "$folder/node.sh" "$run"
code=
[ -f "$run/$SLURMD_NODENAME.code" ] && read -r code _ <"$run/$SLURMD_NODENAME.code"
if [ "$code" = 0 ]; then
    on_all mkdir -p {folders}
{copies}
    MDL_STORES_ALSO={incoming} on_all sh -c {task} "$folder/node.sh" "$run"
    on_all rm -rf {incoming}
fi"""
"""The first node downloads; the others find the bytes on their disk, verify them and need no network."""


def job_script(work: Work, folder: str, fan_out: str = "") -> str:
    """The batch script for the ``work``, whose script is ``node.sh`` in ``folder``. With a ``fan_out`` one node
    downloads, and Slurm copies. Raises `UsageError` if it is not known to which folder."""
    home = work.home or ""
    sweep = _SWEEP.format(home=shlex.quote(home)) if home.startswith("/") else ""
    task = shlex.quote(_TASK.replace("{sweep}", sweep))
    way = f'on_all sh -c {task} "$folder/node.sh" "$run"'
    if fan_out:
        way = _broadcast(work, PurePosixPath(folder).name, task)
    return _JOB.format(folder=shlex.quote(folder), work=way, restarts=_RESTARTS)


def _broadcast(work: Work, name: str, task: str) -> str:
    """The lines that download on one node, and copy the files to the others. Raises `UsageError`."""
    home = work.home or ""
    if not home.startswith("/"):
        raise UsageError("the folder on the nodes' own disks is needed", item="--fan-out", hint="--to /local/models")
    if "--layout=hf-cache" in work.flags:
        raise UsageError("sbcast copies into plain folders", item="--fan-out", hint="leave out --layout hf-cache")
    incoming = PurePosixPath(home, f".{name}")
    folders = sorted({str((incoming / file).parent) for file in work.files})
    pairs = [(PurePosixPath(home, file), incoming / file) for file in work.files]
    copies = [f"    sbcast --force {shlex.quote(str(here))} {shlex.quote(str(there))}" for here, there in pairs]
    return _BROADCAST.format(
        task=task, folders=shlex.join(folders), copies="\n".join(copies), incoming=shlex.quote(str(incoming))
    )
