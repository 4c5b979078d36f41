"""slurm: a batch script that has Slurm run it again when that may help. Pure."""

from __future__ import annotations

import shlex

from mdl.errors import WORTH_RETRYING
from mdl.plugins.render.work import RenderedFile, Work, meaning

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=mdl-get
#SBATCH --output=mdl-get-%j.log --open-mode=append
#SBATCH --ntasks=1 --cpus-per-task=2 --mem=2G
#SBATCH --time=4:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
# Made by 'mdl render slurm'; flags of sbatch have precedence over those above. Start it with: sbatch FILE
{variables}
cancelled=
time_is_over=
{command} &
mdl=$!
# Slurm sends USR1 two minutes before the time is over, and scancel TERM: mdl stops, and what it has fetched is kept.
trap 'time_is_over=1; kill -TERM "$mdl"' USR1
trap 'cancelled=1; kill -TERM "$mdl"' TERM
wait "$mdl"
code=$?
while kill -0 "$mdl" 2>/dev/null; do
    wait "$mdl"
    code=$?
done

# Run it again later after {meaning}, or if its time was over; but not what was cancelled. scancel
# may end mdl before this script is told: without USR1 a stopped mdl was cancelled.
again=
case $code in
{codes}) again=1 ;;
{stopped}) again=$time_is_over ;;
esac
if [ -n "$again" ] && [ -z "$cancelled" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""

_STOPPED = 143
"""The exit code of an mdl that was sent TERM."""
_CODES = tuple(code for code in WORTH_RETRYING if code != _STOPPED)


def render(work: Work) -> tuple[RenderedFile, ...]:
    """A script for ``sbatch``: one task, on whichever node has the network, into a folder that the others see."""
    exports = [_export(name, value) for name, value in work.environ.items()]
    lines = [*exports, *work.shell_comments(_export)]
    text = _SCRIPT.format(
        variables="".join(f"{line}\n" for line in lines),
        command=shlex.join(work.command("get")),
        codes="|".join(map(str, _CODES)),
        stopped=_STOPPED,
        meaning=meaning(_CODES),
    )
    return (RenderedFile("mdl-get.sbatch", text),)


def _export(name: str, value: str) -> str:
    word = shlex.quote(value) if value else ""
    return f"export {name}={word}"
