"""Shells: the scripts by which bash, zsh and fish ask mdl what the Tab key offers, and where each of them belongs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mdl import StorageError, UsageError

_BASH = """\
_mdl_offer() {
    local row
    while IFS= read -r row; do COMPREPLY+=("$(printf %q "${row%%$'\\t'*}")"); done
}
_mdl_completion() {
    local word=${COMP_WORDS[COMP_CWORD]} row
    [ "$word" = "=" ] && word=""
    COMPREPLY=()
    while IFS= read -r row; do
        case $row in
            :file) compopt -o default 2>/dev/null || _mdl_offer < <(compgen -f -- "$word") ;;
            :folder) compopt -o dirnames 2>/dev/null || _mdl_offer < <(compgen -d -- "$word") ;;
            *) _mdl_offer <<< "$row" ;;
        esac
    done < <(_MDL_COMPLETE_LINE="${COMP_LINE:0:COMP_POINT}" "$1" 2>/dev/null)
}
complete -F _mdl_completion mdl
"""

_ZSH = """\
#compdef mdl
_mdl() {
    local row line="${words[1,CURRENT-1]} $PREFIX"
    local -a rows
    for row in ${(f)"$(_MDL_COMPLETE_LINE=$line ${words[1]/#\\~/$HOME} 2>/dev/null)"}; do
        case $row in
            :file) compset -P '--*='; _files; return ;;
            :folder) compset -P '--*='; _files -/; return ;;
            *) rows+=("${${row//:/\\\\:}/$'\\t'/:}") ;;
        esac
    done
    compset -P '--*='
    _describe -V 'mdl' rows
}
if [ "$funcstack[1]" = "_mdl" ]; then _mdl "$@"; else compdef _mdl mdl; fi
"""

_FISH = """\
function __mdl_complete
    set -l word (commandline --current-token --cut-at-cursor)
    set -l option (string match --regex -- '^--[^=]*=' $word)
    set -l value (string replace --regex -- '^--[^=]*=' '' $word)
    for row in (env _MDL_COMPLETE_LINE=(commandline --current-process --cut-at-cursor | string collect) mdl 2>/dev/null)
        switch $row
            case ':file'
                set row (__fish_complete_path "$value")
            case ':folder'
                set row (__fish_complete_directories "$value" folder)
        end
        for one in $row
            echo "$option$one"
        end
    end
end
complete --command mdl --no-files --keep-order --arguments '(__mdl_complete)'
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str, environ: Mapping[str, str]) -> str:
    """The script by which a shell completes ``mdl``; ``this`` is the shell that started mdl. Raises `UsageError`."""
    return _SCRIPTS[_known(shell, environ)]


def install(shell: str, environ: Mapping[str, str]) -> str:
    """Have a shell complete ``mdl`` from its next start on; returns what was done. Raises `StorageError`."""
    shell = _known(shell, environ)
    home = Path.home()
    fish = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "fish", "completions", "mdl.fish")
    bash, zsh = home / ".bash_completions" / "mdl.sh", home / ".zfunc" / "_mdl"
    load = "fpath+=~/.zfunc; autoload -Uz compinit; compinit"
    place, start, line = {
        "bash": (bash, home / ".bashrc", f"source '{bash}'"),
        "zsh": (zsh, Path(environ.get("ZDOTDIR") or home, ".zshrc"), load),
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
    """The name of a shell that mdl has a script for: the one that started mdl if it is ``this``."""
    found = _parent() if shell == "this" else shell
    for name in (found, Path(environ.get("SHELL", "")).name if shell == "this" else ""):
        if name in _SCRIPTS:
            return name
    hint = "name it, as in mdl --install-completion bash"
    raise UsageError(f"completion is there for {', '.join(_SCRIPTS)}", item=found or "this shell", hint=hint)


_PS_SECONDS = 5.0


def _parent() -> str:
    """The name of the program that started mdl."""
    from mdl.child_output import output_of

    try:
        name = output_of(["ps", "-o", "comm=", "-p", str(os.getppid())], seconds=_PS_SECONDS).out
    except OSError:
        return ""
    return Path(name.strip().lstrip("-")).name
