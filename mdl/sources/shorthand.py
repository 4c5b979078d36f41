"""Typed: what users of other tools write for a target, as the one reference that it means. Pure.

A word that can mean only one thing is understood. If it can mean two, or nothing, the error names the right words.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from mdl.errors import UsageError
from mdl.paths import shown
from mdl.sources import is_reference
from mdl.sources.hub_origin import parse_page, shown_url, why_bad_id
from mdl.sources.url import FILE_NAME, has_extension

_GIT = re.compile(
    r"(?:(?:git\+)?(?:https?|git)://|(?:ssh://)?git@)(?P<host>[\w.-]+(?::\d+(?=/))?)[:/](?P<path>[^?#]+?)(?P<git>\.git)?/?",
    re.IGNORECASE,
)
_HOST = re.compile(r"localhost|[\w.-]+:\d+|\d+(?:\.\d+){3}|\[[0-9a-f:.]+\](?::\d+)?", re.IGNORECASE)
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_REPOSITORY = re.compile(
    r"(?:(?:datasets|models|spaces)/)?(?P<id>[^/@:\s]+/[^/@:\s]+)(?P<more>@[^:\s]+)?(?P<quant>:[^/@:\s]+)?"
)
_MANY_FILES = re.compile(r"[*?\[]")


def reference_in(word: str, page_hosts: Collection[str]) -> str | None:
    """The reference that ``word`` means: ``org/repo``, a page without its scheme, an address for git, ``HF:…``. None if
    it is, or may be, a name of the catalog.

    Raises `UsageError` for an empty word, and for what has no one meaning.
    """
    if not word.strip():
        raise UsageError("an empty name (is a variable not set?)", hint="give the name of a model, or hf:org/repo")
    cloned = _cloned(word, page_hosts)
    if cloned is not None:
        return cloned
    scheme, colon, rest = word.partition(":")
    if colon and scheme.lower() in ("hf", "s3"):
        return f"{scheme.lower()}:{rest}"
    if is_reference(word):
        page = _of_page(re.sub("^[^:]*://", "", word), page_hosts) or ""
        return page if page.startswith("hf:") else word
    if "/" not in word:
        return None
    return _of_page(word, page_hosts) or _of_path(word)


def _cloned(word: str, page_hosts: Collection[str]) -> str | None:
    """An address that 'git clone' takes; None if it is not one."""
    match = _GIT.fullmatch(word)
    if not match:
        return None
    is_by_ssh = "git@" in word.partition("/")[0] or word.lower().startswith("ssh://git@")
    if not match["git"] and not is_by_ssh:
        return None
    if match["host"].lower() in page_hosts:
        return f"hf:{match['path']}"
    hint = "give the URL of one of its files; a repository of the hub is hf:org/repo"
    raise UsageError("mdl does not clone git repositories", item=shown_url(word), hint=hint)


def _of_page(word: str, page_hosts: Collection[str]) -> str | None:
    """A page of the hub without its scheme; None if it is not one."""
    host, _, path = word.partition("/")
    if host.lower() not in page_hosts:
        return None
    match = _REPOSITORY.fullmatch(path)
    if match and match["quant"]:
        return f"hf:{path}"
    return f"https://{word}" if parse_page(f"https://{word}", page_hosts) else None


def _of_path(word: str) -> str | None:
    """The reference of a word with slashes that has no scheme; None for none."""
    first = word.partition("/")[0]
    said = shown(word)[:200]
    if _HOST.fullmatch(first):
        raise UsageError("a URL needs its scheme", item=said, hint=f"write http://{said} or https://{said}")
    if _DOMAIN.fullmatch(first):
        hint = f"write https://{said}"
        if why_bad_id(word) is None:
            hint += f"; if {first} is an owner on the hub, hf:{said}"
        raise UsageError("a URL needs its scheme", item=said, hint=hint)
    match = _REPOSITORY.fullmatch(word)
    if match and why_bad_id(match["id"]) is None:
        return f"hf:{word}"
    owner, *others = word.split("/")
    if len(others) > 1 and all(others) and why_bad_id(f"{owner}/{others[0]}") is None:
        hint = f"for a file of a repository of the hub: mdl get {owner}/{others[0]} {'/'.join(others[1:])}"
        raise UsageError("neither a name of the catalog nor a repository", item=said, hint=hint)
    return None


def is_file_word(word: str, repository: str, page_hosts: Collection[str]) -> bool:
    """Whether ``word``, which follows ``repository`` and is not a name of the catalog, names a file or a folder of it,
    as 'hf download' has it. Raises `UsageError` if it may be another repository as well, and for a pattern."""
    if is_reference(word) or not word.strip() or word.partition(":")[0].lower() in ("hf", "s3") or "git@" in word:
        return False
    if _MANY_FILES.search(word):
        said = shown(word)[:200]
        raise UsageError("a pattern is not the name of a file", item=said, hint=f"--include '{said}'")
    owner, _, rest = word.partition("/")
    if owner.lower() in page_hosts or (rest and _HOST.fullmatch(owner)):
        return False
    match = _REPOSITORY.fullmatch(word)
    if FILE_NAME.fullmatch(word) or not match or why_bad_id(match["id"]):
        return True
    if has_extension(rest) and not (match["more"] or match["quant"]):
        said = shown(word)[:200]
        hint = f"write hf:{said} for the repository; for the file: mdl get {repository} --include {said}"
        raise UsageError(f"may be a file of {repository} or a repository", item=said, hint=hint)
    return False


def what_else(word: str) -> str:
    """A hint at what a name may mean that no catalog has; '' for none."""
    name, colon, tag = word.partition(":")
    if word.startswith((".", "/", "~")):
        return "what is on this disk already: mdl import DIR"
    if colon and re.fullmatch(r"[\w.-]+", name) and re.fullmatch(r"[\w.-]+", tag):
        return f"mdl does not know Ollama's models; for GGUF files of the hub: mdl get OWNER/{name}-GGUF:Q4_K_M"
    if not colon and why_bad_id(word) is None:
        return f"a repository of the hub needs its owner: mdl get OWNER/{word}"
    return ""
