"""The batch job that Slurm runs: one task on each node, a restart for what may be better later. Pure.

A task writes three files into the folder of its run: what mdl said on its two outputs, and last its exit code.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from mdl.errors import UsageError
from mdl.plugins.fleet.work import Work

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
"""Runs the script ``$0`` on a node, with its answer in the folder ``$1``; the ``.code`` comes last, and whole."""
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
