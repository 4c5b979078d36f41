"""Shorthand: what users of other tools write for a source, such as ``org/repo`` or an address for git. Pure.

A word that can mean only one thing is understood. If it can mean two, or nothing, the error names the right words
(ADR 30).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from mdl.errors import UsageError
from mdl.paths import shown
from mdl.sources import Origin, is_reference, parse
from mdl.sources.hub_origin import parse_page, parse_reference, why_bad_id
from mdl.sources.url_origin import FILE_NAME, has_extension
from mdl.urls import shown_url

_CLONE = (
    r"(?i)(?:(?:ssh://)?git@|(?:git\+)?(?:https?|git)://(?=[^?#]*\.git/?\Z))"
    r"(?P<host>[\w.-]+(?::\d+(?=/))?)[:/](?P<path>[^?#]+?)(?:\.git)?/?"
)
"""What 'git clone' takes: an address with ``git@``, or a URL that ends in ``.git``."""
_HOST = r"(?i)localhost|[\w.-]+:\d+|\d+(?:\.\d+){3}|\[[0-9a-f:.]+\](?::\d+)?"
_DOMAIN = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
_REPOSITORY = r"(?:(?:datasets|models|spaces)/)?(?P<id>[^/@:\s]+/[^/@:\s]+)(?P<more>(?:@[^:\s]+)?(?::[^/@:\s]+)?)"
_FILE_OF_REPOSITORY = r"(?P<id>[^/]+/[^/]+)/(?P<path>[^/]+(?:/[^/]+)*)"
_PATH_OF_PAGE = r"(?P<id>[^/]+/[^/]+)/(?:tree|blob|resolve|raw)/(?P<revision>[^/]+)(?P<path>(?:/[^/]+)+)?"
_MANY_FILES = r"[*?\[]"
_NAME_AND_TAG = r"([\w.-]+):[\w.-]+"


def read_word(word: str, page_hosts: Collection[str]) -> Origin | None:
    """The origin that a word of the command line means: a reference, ``org/repo``, a page of the hub without its
    scheme, an address for git. None if it is, or may be, a name of the catalog.

    Raises `UsageError` for what has no one meaning, and as `parse`.
    """
    clone = re.fullmatch(_CLONE, word)
    if clone:
        if clone["host"].lower() in page_hosts:
            return parse_reference(f"hf:{clone['path']}")
        hint = "give the URL of one of its files; a repository of the hub is hf:org/repo"
        raise UsageError("mdl does not clone git repositories", item=shown_url(word), hint=hint)
    if is_reference(word):
        return parse(word, page_hosts)
    if "/" not in word:
        return None
    return parse_page(f"https://{word}", page_hosts) or _read_path(word)


def _read_path(word: str) -> Origin | None:
    """The repository that a word with slashes means, which has no scheme; None for none. Raises `UsageError`."""
    first = word.partition("/")[0]
    said = shown(word)[:200]
    if re.fullmatch(_HOST, first):
        raise UsageError("a URL needs its scheme", item=said, hint=f"write http://{said} or https://{said}")
    if re.fullmatch(_DOMAIN, first):
        hint = f"write https://{said}"
        if why_bad_id(word) is None:
            hint += f"; if {first} is an owner on the hub, hf:{said}"
        raise UsageError("a URL needs its scheme", item=said, hint=hint)
    repository = re.fullmatch(_REPOSITORY, word)
    if repository and why_bad_id(repository["id"]) is None:
        return parse_reference(f"hf:{word}")
    page = re.fullmatch(_PATH_OF_PAGE, word)
    if page and why_bad_id(page["id"]) is None:
        hint = f"write hf:{page['id']}@{page['revision']}{page['path'] or ''}"
        raise UsageError("a part of an address of the hub", item=said, hint=hint)
    file = re.fullmatch(_FILE_OF_REPOSITORY, word)
    if file and why_bad_id(file["id"]) is None:
        hint = f"for a file of a repository of the hub: mdl get {file['id']} {file['path']}"
        raise UsageError("neither a name of the catalog nor a repository", item=said, hint=hint)
    return None


def names_a_file(word: str, repository: str, page_hosts: Collection[str]) -> bool:
    """Return whether ``word``, which follows ``repository`` and is not a name of the catalog, names a file or a folder
    of it, as 'hf download' has it. Raises `UsageError` if it may be another repository as well, and for a pattern."""
    if is_reference(word) or re.fullmatch(_CLONE, word):
        return False
    said = shown(word)[:200]
    if re.search(_MANY_FILES, word):
        raise UsageError("a pattern is not the name of a file", item=said, hint=f"--include '{said}'")
    first, slash, name = word.partition("/")
    if slash and (first.lower() in page_hosts or re.fullmatch(_HOST, first)):
        return False
    if re.fullmatch(FILE_NAME, word):
        return True
    other = re.fullmatch(_REPOSITORY, word)
    if other is None or why_bad_id(other["id"]):
        return True
    if other["more"] or not has_extension(name):
        return False
    hint = f"write hf:{said} for the repository; for the file: mdl get {repository} --include {said}"
    raise UsageError(f"may be a file of {repository} or a repository", item=said, hint=hint)


def advice_on_name(name: str) -> str | None:
    """A hint at what a name may mean that no catalog has; None for none."""
    if name.startswith((".", "/", "~")):
        return "for what is on this disk already: mdl import DIR"
    if name.endswith("/") and name.strip("/"):
        return f"without the slash at its end: mdl get {name.rstrip('/')}"
    tagged = re.fullmatch(_NAME_AND_TAG, name)
    if tagged:
        return f"mdl does not know Ollama's models; for GGUF files of the hub: mdl get OWNER/{tagged[1]}-GGUF:Q4_K_M"
    if why_bad_id(name) is None:
        return f"a repository of the hub needs its owner: mdl get OWNER/{name}"
    return None
