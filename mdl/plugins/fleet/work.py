"""Work: what a node is asked, as a small shell script, and what it answers. Pure.

The catalog's entries and their lock travel in the script, so that every node works on the same commits. No secret
does: a node has tokens from its own environment, or from what the engine passes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mdl.bounds import LARGEST_CHILD_OUTPUT
from mdl.values import value_class

_SCRIPT = """\
folder=$(mktemp -d) || exit 7
trap 'rm -rf "$folder"' EXIT
cat >"$folder/catalog.toml" <<'END OF THE CATALOG' || exit 7
{catalog}
END OF THE CATALOG
cat >"$folder/mdl.lock" <<'END OF THE LOCK' || exit 7
{lock}
END OF THE LOCK
exec 3<&0
{command} --catalog="$folder/catalog.toml" -- {names} </dev/null 3<&- &
pid=$!
trap 'kill -TERM "$pid"' TERM
{watch}
while :; do wait "$pid"; code=$?; kill -0 "$pid" 2>/dev/null || break; done
{after}
exit "$code"
"""
_WATCH = '{ while read -r _; do :; done; kill -TERM "$pid"; } <&3 >/dev/null 2>&1 &\nwatch=$!\nexec 3<&-'
"""Ends mdl if the standard input ends: the process that asked is gone."""


@value_class
class Work:
    """What every node is to do: a command of mdl with its ``flags``, on the models ``names`` of ``catalog`` and
    ``lock``, which are texts. ``program`` are the words by which a node calls mdl. ``home`` is the models folder if
    one was given; ``files`` are the paths below it that the models have. ``left_out`` names the files and models of
    whose URLs something is not sent because it may be a secret."""

    command: str
    flags: Sequence[str]
    names: Sequence[str]
    catalog: str
    lock: str
    program: Sequence[str] = ("mdl",)
    home: str | None = None
    files: Sequence[str] = ()
    left_out: Sequence[str] = ()

    def script(self, *, ends_with_stdin: bool = False) -> str:
        """The script for ``sh`` of a node. What mdl says is its output, and its exit code that of the script. With
        ``ends_with_stdin`` mdl is ended when the standard input ends."""
        return _SCRIPT.format(
            catalog=self.catalog.rstrip("\n"),
            lock=self.lock.rstrip("\n"),
            command=shlex.join([*self.program, self.command, "--json", "--progress=none", *self.flags]),
            names=shlex.join(self.names),
            watch=_WATCH if ends_with_stdin else "",
            after='kill "$watch"' if ends_with_stdin else "",
        )


TOO_LONG = f"its answer has more than {LARGEST_CHILD_OUTPUT // 2**20} MiB"
"""What is wrong with a node that says too much."""


@value_class
class Answer:
    """What a node said on its two outputs, in ``seconds``. If it did not answer, ``exit_code`` is None, ``err`` says
    why and ``hint`` what to do. ``fault`` says what is wrong with the answer itself, if it cannot be read.
    ``replaced_by`` names the node that did the work instead."""

    node: str
    exit_code: int | None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    replaced_by: str = ""
    fault: str = ""
    hint: str = "look at the node, and run it again"
