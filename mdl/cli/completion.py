"""Completion: what the Tab key offers for a value: the models, jobs, checkpoints and so on that there are.

Typer knows the commands and the options, and asks these callbacks for the rest. Nothing is contacted. A value for which
nothing is offered is completed by the shell, as a path.

At the end the scripts by which bash, zsh and fish ask, and where each of them belongs. Typer's own scripts insert
names as they are into bash, and pass titles to ``eval`` in zsh (ADR 62).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from mdl import StorageError, UsageError
from mdl.cli.commands import groups
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import Client

Offer = tuple[str, str]
"""A value, and what it is."""
OffersOf = Callable[[typer.Context], Iterable[Offer]]
Callback = Callable[[typer.Context, str], list[str]]
"""How Typer asks: with the context of the line that was typed so far, and the beginning of the value."""
_MOST_JOBS = 50
_SEVERAL = ",…"


def offer_row(value: str, about: str) -> str:
    """A value that Tab offers, as the scripts of the shells read it: with what it is behind a tab."""
    return f"{value}\t{shown(' '.join(about.split()))}".rstrip("\t")


def callback(offers_of: OffersOf) -> Callback:
    """Return the callback that Typer is given, from a function that knows what may stand there. An argument that was
    typed is not offered again."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        del incomplete  # Typer looks which of them begin so
        return _rows(offers_of(ctx), _arguments(ctx))

    return complete


def _separated(offers_of: OffersOf) -> Callback:
    """Return a `callback` for values between commas: those before the last comma are there already."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before = incomplete[: incomplete.rfind(",") + 1]
        return [before + row for row in _rows(offers_of(ctx), before.split(","))]

    return complete


def _rows(offers: Iterable[Offer], typed: Sequence[str]) -> list[str]:
    """Return the rows of what is offered, without what was ``typed`` before, and without what no shell can show."""
    return [offer_row(value, about) for value, about in offers if value.isprintable() and value not in typed]


def offers(word: str) -> Callback | None:
    """Return the callback for a value that ``word`` stands for: ``NAME``, ``plain|hf-cache``, ``COLUMN,…``."""
    if word.islower():
        choices = [(choice, "") for choice in word.split("|")]
        return callback(lambda ctx: choices)
    if word.endswith(_SEVERAL):
        return _separated(_BY_WORD[word.removesuffix(_SEVERAL)])
    for part in word.split("|"):
        if part in _BY_WORD:
            return callback(_BY_WORD[part])
    return None


def _arguments(ctx: typer.Context) -> list[str]:
    """The arguments that were typed so far. Behind an option that still lacks its value Typer leaves them unread."""
    words = [*ctx.args]
    for param in ctx.command.params:
        if param.param_type_name == "argument":
            words += values_of(ctx.params.get(param.name))
    return words


def values_of(value: Any) -> list[Any]:
    """The values of a parameter that may have one, several or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _client(ctx: typer.Context) -> Client:
    """A client of the models folder and the catalogs that the line names."""
    from mdl import Client
    from mdl.config.settings import Config

    catalogs = [*(ctx.find_root().params["catalog"] or ()), *(ctx.params["catalog"] or ())]
    given = {
        "offline": True,
        "home": ctx.params.get("home"),
        "layout": ctx.params.get("layout"),
        "catalog": [path.expanduser() for path in catalogs],
    }
    return Client(config=Config(given, flags=True), on_warning=lambda _: None)


def _targets(ctx: typer.Context) -> Iterator[Offer]:
    """Offer the models and groups of the catalog."""
    catalog = _client(ctx).catalog
    for model in catalog.models.values():
        yield model.name, model.title or model.kind
    for name, members in catalog.groups.items():
        yield name, f"group: {', '.join(members)}"


def _models(ctx: typer.Context) -> Iterator[Offer]:
    """Offer models and groups of the catalog, and the other models in the models folder."""
    targets = dict(_targets(ctx))
    yield from targets.items()
    for name in _folders(_client(ctx).config.home.path):
        if name not in targets:
            yield name, _IN_NO_CATALOG


def _here(ctx: typer.Context) -> Iterator[Offer]:
    """Offer the models in the models folder."""
    client = _client(ctx)
    models = client.catalog.models
    for name in sorted({*client.stores.open().receipts.models(), *_folders(client.config.home.path)}):
        yield name, models[name].title if name in models else _IN_NO_CATALOG


_IN_NO_CATALOG: Final = "on this disk, in no catalog"


def _folders(place: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


_OPEN: Final = {
    "mdl jobs pause": ("running",),
    "mdl jobs cancel": ("running", "paused"),
    "mdl jobs resume": ("paused", "failed", "cancelled", "dead"),
}
"""The statuses of the jobs that a command is for."""


def _jobs(ctx: typer.Context) -> Iterator[Offer]:
    """Offer the newest jobs that the command is for."""
    from mdl.config import places
    from mdl.jobs.job import what_was_typed
    from mdl.jobs.records import Records

    statuses = _OPEN.get(ctx.command_path)
    jobs = [job for job in Records(places.state_dir() / "jobs").all() if statuses is None or job.status in statuses]
    for job in jobs[:_MOST_JOBS]:
        yield job.id, f"{job.status}: {what_was_typed(job)}"


def _remotes(ctx: typer.Context) -> Iterator[Offer]:
    for remote in _client(ctx).remotes.values():
        yield remote.name, f"{remote.kind}: {remote.address}"


_BY_ROLE: Final = (("latest", "the newest complete one"), ("best", "the one that the trainer calls best"))


def _checkpoints(ctx: typer.Context) -> Iterator[Offer]:
    """Offer the checkpoints of the run that the line names."""
    import mdl
    from mdl.formatting import human_bytes

    for run in _arguments(ctx)[:1]:
        for checkpoint in reversed(mdl.checkpoints(Path(run).expanduser()).checkpoints):
            marks = [mark for mark in ("latest", "best") if getattr(checkpoint, mark)]
            if not checkpoint.complete:
                marks.append("incomplete")
            yield checkpoint.name, ", ".join([human_bytes(checkpoint.bytes), *marks])
        yield from _BY_ROLE


def _releases(ctx: typer.Context) -> Iterator[Offer]:
    for place in _arguments(ctx)[:1]:
        for name in _folders(Path(place).expanduser() / "releases"):
            yield name, "a release"


def _keys(_: typer.Context) -> Iterator[Offer]:
    from mdl.config.settings import settings_table

    for name, setting in settings_table().items():
        if not setting.of_a_run:
            yield name, setting.help.rstrip(".")


def _columns(_: typer.Context) -> Iterator[Offer]:
    from mdl.cli.model_table import COLUMNS

    yield from COLUMNS.items()


def _topics(ctx: typer.Context) -> Iterator[Offer]:
    words = _arguments(ctx)
    if words == ["schema"]:
        from mdl.schemas import names

        for name in names():
            yield name, ""
    if not words:
        yield "exit-codes", "what each exit code means"
        yield "schema", "the JSON Schema of a command's output"
        for commands in groups().values():
            for name, listed in commands.items():
                yield name, listed.summary


def _kinds(ctx: typer.Context) -> Iterator[Offer]:
    for kind in sorted({model.kind for model in _client(ctx).catalog.models.values()}):
        yield kind, ""


def _tags(ctx: typer.Context) -> Iterator[Offer]:
    for tag in sorted({tag for model in _client(ctx).catalog.models.values() for tag in model.tags}):
        yield tag, ""


_BY_WORD: Final[dict[str, OffersOf]] = {
    "TARGET": _targets,
    "NAME": _models,
    "REF": _models,
    "GROUP": _targets,
    "ID": _jobs,
    "REMOTE": _remotes,
    "KIND": _kinds,
    "TAG": _tags,
    "KEY": _keys,
    "COLUMN": _columns,
    "VERSION": _releases,
}
"""The offers for the word that stands for a value."""
here = callback(_here)
checkpoints = callback(_checkpoints)
by_role = callback(lambda _: _BY_ROLE)
topics = callback(_topics)


_ASK: Final = "env _MDL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS"
"""How every script asks: for rows of a value, a tab and what it is."""

_BASH = f"""\
_mdl_completion() {{
    local line=${{COMP_LINE:0:COMP_POINT}} word=${{COMP_WORDS[COMP_CWORD]}} row typed before
    case $word in [=:]) word= ;; esac
    typed=${{line##*[[:space:]]}}
    before=${{typed%"$word"}}
    COMPREPLY=()
    while IFS= read -r row; do
        row=${{row%%$'\\t'*}}
        [ -n "$row" ] && COMPREPLY+=("$(printf %q "${{row#"$before"}}")")
    done < <({_ASK}="$line" "$1" 2>/dev/null)
}}
complete -o default -F _mdl_completion mdl
"""

_ZSH = f"""\
#compdef mdl
_mdl() {{
    local row line="${{words[1,CURRENT-1]}} $PREFIX"
    local -a rows
    for row in ${{(f)"$({_ASK}=$line ${{words[1]/#\\~/$HOME}} 2>/dev/null)"}}; do
        rows+=("${{${{row//:/\\\\:}}/$'\\t'/:}}")
    done
    compset -P '--*='
    if (( $#rows )); then _describe -V 'mdl' rows; else _files; fi
}}
if [ "$funcstack[1]" = "_mdl" ]; then _mdl "$@"; else compdef _mdl mdl; fi
"""

_FISH = f"""\
function __mdl_complete
    set -l word (commandline --current-token --cut-at-cursor)
    set -l option (string match --regex -- '^--[^=]*=' $word)
    set -l value (string replace --regex -- '^--[^=]*=' '' $word)
    set -l line (commandline --current-process --cut-at-cursor | string collect)
    set -l rows ({_ASK}=$line mdl 2>/dev/null | string match --regex '.+')
    test -n "$rows"; or set rows (__fish_complete_path "$value")
    for row in $rows
        echo "$option$row"
    end
end
complete --command mdl --no-files --keep-order --arguments '(__mdl_complete)'
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion_script(shell: str, environ: Mapping[str, str]) -> str:
    """The script by which a shell completes ``mdl``; ``auto`` is the shell of the user. Raises `UsageError`."""
    return _SCRIPTS[_known(shell, environ)]


def install_completion(shell: str, environ: Mapping[str, str]) -> str:
    """Have a shell complete ``mdl`` from its next start on; returns what was done. Raises `StorageError`."""
    from mdl.disk.safe_open import make_folders

    shell = _known(shell, environ)
    home = Path.home()
    fish = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "fish", "completions", "mdl.fish")
    bash = home / ".bash_completions" / "mdl.sh"
    place, start, line = {
        "bash": (bash, home / ".bashrc", f"source '{bash}'"),
        "zsh": (
            home / ".zfunc" / "_mdl",
            Path(environ.get("ZDOTDIR") or home, ".zshrc"),
            "fpath+=~/.zfunc; autoload -Uz compinit; compinit",
        ),
        "fish": (fish, None, ""),
    }[shell]
    try:
        make_folders(place.parent)
        place.touch(0o644)  # a shell runs it: nobody else may write it, whatever the umask
        place.write_bytes(_SCRIPTS[shell].encode())
        if start and os.fsencode(line) not in (start.read_bytes().splitlines() if start.exists() else ()):
            start.touch(0o644)
            with start.open("ab") as file:
                file.write(b"\n%b\n" % os.fsencode(line))
    except OSError as error:
        raise StorageError(error.strerror or str(error), item=error.filename, hint="mdl --show-completion") from error
    also = f", and {start} loads it" if start else ""
    return f"{place} was written{also}; {shell} completes mdl from its next start on"


def _known(shell: str, environ: Mapping[str, str]) -> str:
    """The name of a shell that mdl has a script for: the user's login shell if it is ``auto``. Raises `UsageError`."""
    name = Path(environ.get("SHELL", "")).name if shell == "auto" else shell
    if name not in _SCRIPTS:
        hint = "name it, as in mdl --install-completion bash"
        raise UsageError(f"completion is there for {', '.join(_SCRIPTS)}", item=name or "this shell", hint=hint)
    return name
