"""Shells: the scripts by which bash, zsh and fish ask Typer what the Tab key offers, and where each of them belongs.

Typer's own scripts insert names as they are into bash, and pass titles to ``eval`` in zsh (ADR 62).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mdl import StorageError, UsageError

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


def script(shell: str, environ: Mapping[str, str]) -> str:
    """The script by which a shell completes ``mdl``; ``auto`` is the shell of the user. Raises `UsageError`."""
    return _SCRIPTS[_known(shell, environ)]


def install(shell: str, environ: Mapping[str, str]) -> str:
    """Have a shell complete ``mdl`` from its next start on; returns what was done. Raises `StorageError`."""
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
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_SCRIPTS[shell])
        if start and line not in (start.read_text().splitlines() if start.exists() else ()):
            with start.open("a") as file:
                file.write(f"\n{line}\n")
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
