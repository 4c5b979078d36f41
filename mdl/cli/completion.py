"""Completion: what the Tab key offers: commands, options, and the models, jobs, checkpoints and so on that there are.

A shell passes the line as it was typed so far. mdl answers with rows: a word, a tab, what it is; a row ``:file`` or
``:folder`` has the shell complete a path by itself. Nothing is contacted.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mdl.cli.commands import GROUPS
from mdl.cli.pages import Row, rows_below, value_of
from mdl.cli.parsing import name_of
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import Client

_MOST_JOBS = 50
_MORE = ",…"
_FILE, _FOLDER = Row(":file", ""), Row(":folder", "")


@dataclass
class _Typed:
    """What stands on the line before the last word: the ``path`` of the command (``jobs show``), its ``arguments``,
    the values of its ``options`` by their long names, and the option whose value the last word is, if it is one."""

    command: Any
    path: str = ""
    arguments: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)
    pending: Any = None
    is_ended: bool = False
    """After ``--`` there are no options."""


def words_of(line: str) -> list[str]:
    """The words after ``mdl``; the last is the one to be completed, and may be empty. An open quote ends them."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words += lexer
    except ValueError:
        return [*words, lexer.token.lstrip("'\"")][1:]
    return [*words, ""][1:] if line[-1:].isspace() else words[1:]


def complete(root: Any, words: list[str]) -> Iterator[str]:
    """The rows for the last of ``words``: each a word that begins so, and behind a tab what it is."""
    *before, last = words or [""]
    typed = _read(root, before)
    option, has_value, value = last.partition("=")
    if typed.pending is None and has_value and option.startswith("--") and not typed.is_ended:
        typed.pending, last = _option(typed.command, option), value
    for row in _offers(typed, last):
        if row.usage.startswith((last, ":")) and row.usage.isprintable():
            yield "\t".join(shown(" ".join(text.split())) for text in row if text)


def _read(root: Any, words: Iterable[str]) -> _Typed:
    """What the whole words of a line mean."""
    typed = _Typed(root)
    for word in words:
        below = getattr(typed.command, "commands", {})
        if typed.pending is not None:
            typed.options.setdefault(name_of(typed.pending), []).append(word)
            typed.pending = None
        elif word == "--" and not typed.is_ended:
            typed.is_ended = True
        elif word.startswith("-") and not typed.is_ended:
            name, has_value, value = word.partition("=")
            option = _option(typed.command, name)
            if option is not None and has_value:
                typed.options.setdefault(name_of(option), []).append(value)
            elif option is not None and value_of(option):
                typed.pending = option
        elif word in below and not typed.arguments:
            typed.command, typed.path = below[word], f"{typed.path} {word}".strip()
        else:
            typed.arguments.append(word)
    return typed


def _option(command: Any, name: str) -> Any:
    return next((param for param in command.params if name in param.opts), None)


def _offers(typed: _Typed, last: str) -> Iterator[Row]:
    """All that may stand there."""
    if typed.pending is not None:
        yield from _values(typed, typed.pending, last)
    elif last.startswith("-") and not typed.is_ended:
        yield from _options(typed.command)
    elif not typed.path and not typed.arguments:
        for commands in GROUPS.values():
            yield from (Row(name, listed.summary) for name, listed in commands.items())
    else:
        yield from rows_below(typed.command) if not typed.arguments else ()
        wanted = [param for param in typed.command.params if param.param_type_name == "argument"]
        at = min(len(typed.arguments), len(wanted) - 1)
        if wanted and (at == len(typed.arguments) or wanted[at].nargs == -1):
            yield from _values(typed, wanted[at], last)
        elif not hasattr(typed.command, "commands"):
            yield from _options(typed.command)


def _options(command: Any) -> Iterator[Row]:
    for param in command.params:
        if param.param_type_name == "option" and not param.hidden:
            yield Row(max(param.opts, key=len), (param.help or "").partition(" [")[0].rstrip("."))


def _values(typed: _Typed, param: Any, last: str) -> Iterator[Row]:
    """What may be the value of a parameter, by its name in this command, or else by the words for its value; for
    ``WORD,…`` several, of which those before the last comma of ``last`` are there already."""
    word = value_of(param).strip("[]")
    if word.endswith(_MORE):
        before = last[: last.rfind(",") + 1]
        for row in _OFFERS[word.removesuffix(_MORE)](typed):
            if row.usage not in before.split(","):
                yield Row(before + row.usage, row.about)
    elif named := _OFFERS.get(f"{typed.path} {name_of(param)}"):
        yield from named(typed)
    elif word.islower():
        yield from (Row(choice, "") for choice in word.split("|"))
    else:
        for offer in dict.fromkeys(_OFFERS[kind] for kind in word.split("|") if kind in _OFFERS):
            yield from offer(typed)


def _client(typed: _Typed) -> Client:
    """A client of the models folder and the catalogs that the line names."""
    from mdl import Client
    from mdl.config import Config

    given = {
        "offline": True,
        "home": typed.options.get("--to", [None])[-1],
        "layout": typed.options.get("--layout", [None])[-1],
    }
    catalogs = [Path(path).expanduser() for path in typed.options.get("--catalog", [])]
    return Client(config=Config({**given, "catalog": catalogs}, flags=True), on_warning=lambda _: None)


def _targets(typed: _Typed) -> Iterator[Row]:
    """The models and groups of the catalog."""
    catalog = _client(typed).catalog
    for model in catalog.models.values():
        if model.name not in typed.arguments:
            yield Row(model.name, model.title or model.kind)
    for name, members in catalog.groups.items():
        if name not in typed.arguments:
            yield Row(name, f"group: {', '.join(members)}")


def _models(typed: _Typed) -> Iterator[Row]:
    """The same, and what else is in the models folder."""
    known = [*_targets(typed)]
    yield from known
    names = {row.usage for row in known} | {*typed.arguments}
    for name in _folders(_client(typed).workspace.config.home.path):
        if name not in names:
            yield Row(name, "on this disk, in no catalog")


def _here(typed: _Typed) -> Iterator[Row]:
    """What is in the models folder."""
    client = _client(typed)
    known, home = client.catalog.models, client.workspace.config.home.path
    for name in sorted({*client.workspace.store([]).receipts.models(), *_folders(home)} - {*typed.arguments}):
        yield Row(name, known[name].title if name in known else "on this disk, in no catalog")


def _folders(place: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


_OPEN: Final = {
    "jobs pause": ("running",),
    "jobs limit": ("running",),
    "jobs cancel": ("running", "paused"),
    "jobs resume": ("paused", "failed", "cancelled", "dead"),
}
"""The statuses of the jobs that a command is for."""


def _jobs(typed: _Typed) -> Iterator[Row]:
    from mdl import places
    from mdl.jobs.records import Records

    found = [
        job
        for job in Records(places.state_dir() / "jobs").all()
        if job.status in _OPEN.get(typed.path, (job.status,)) and job.id not in typed.arguments
    ]
    for job in found[:_MOST_JOBS]:
        yield Row(job.id, f"{job.status}: {' '.join((job.command, *job.models))}")


def _remotes(typed: _Typed) -> Iterator[Row]:
    for remote in _client(typed).remotes.values():
        yield Row(remote.name, f"{remote.kind}: {remote.address}")


def _checkpoints(typed: _Typed) -> Iterator[Row]:
    """The checkpoints of the run that the line names."""
    import mdl
    from mdl.formatting import human_bytes

    if not typed.arguments:
        return
    for one in reversed(mdl.checkpoints(Path(typed.arguments[0]).expanduser()).checkpoints):
        marks = [human_bytes(one.bytes), *(mark for mark in ("latest", "best") if getattr(one, mark))]
        yield Row(one.name, ", ".join([*marks, *([] if one.complete else ["incomplete"])]))
    yield from _BY_ROLE


_BY_ROLE = (Row("latest", "the newest complete one"), Row("best", "the one that the trainer calls best"))


def _releases(typed: _Typed) -> Iterator[Row]:
    for place in typed.arguments[:1]:
        for name in _folders(Path(place).expanduser() / "releases"):
            yield Row(name, "a release")


def _keys(_: _Typed) -> Iterator[Row]:
    from mdl.config import settings_table

    for name, setting in settings_table().items():
        if not setting.of_a_run:
            yield Row(name, setting.help.rstrip("."))


def _columns(_: _Typed) -> Iterator[Row]:
    from mdl.cli.model_table import COLUMNS

    yield from (Row(name, column.about) for name, column in COLUMNS.items())


def _schemas(_: _Typed) -> Iterator[Row]:
    from mdl import schemas

    yield from (Row(name, "") for name in schemas.names())


def _topics(typed: _Typed) -> Iterator[Row]:
    if not typed.arguments:
        yield Row("exit-codes", "what each exit code means")
        for commands in GROUPS.values():
            yield from (Row(name, listed.summary) for name, listed in commands.items())


def _of_catalog(key: str) -> Callable[[_Typed], Iterator[Row]]:
    """The kinds, or the tags, that the models of the catalog have."""

    def rows(typed: _Typed) -> Iterator[Row]:
        found = [getattr(model, key) for model in _client(typed).catalog.models.values()]
        words = {word for one in found for word in ([one] if isinstance(one, str) else one)}
        yield from (Row(word, "") for word in sorted(words))

    return rows


_OFFERS: Final[dict[str, Callable[[_Typed], Iterable[Row]]]] = {
    "TARGET": _targets,
    "NAME": _models,
    "REF": _models,
    "GROUP": _targets,
    "ID": _jobs,
    "REMOTE": _remotes,
    "KIND": _of_catalog("kind"),
    "TAG": _of_catalog("tags"),
    "KEY": _keys,
    "COLUMN": _columns,
    "FILE": lambda _: (_FILE,),
    "ARCHIVE": lambda _: (_FILE,),
    "CMD": lambda _: (_FILE,),
    "DIR": lambda _: (_FOLDER,),
    "RUN": lambda _: (_FOLDER,),
    **dict.fromkeys(("add NAME", "import --as", "get --output"), lambda _: ()),
    "pack --checkpoint": _checkpoints,
    "fetch --checkpoint": lambda _: _BY_ROLE,
    "rollback --to": _releases,
    "rm NAME|REF": _here,
    "verify NAME": _here,
    "schema NAME": _schemas,
    "help COMMAND": _topics,
}
"""What is offered for the word that stands for a value, or for one parameter of one command."""
