"""Search of a hub: repositories whose names hold some words, as the hub's own page finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from mdl.bounds import OutOfBounds, whole_number
from mdl.errors import LockError, MdlError, ProtocolError, UsageError, online_hint
from mdl.files import repo_path
from mdl.sources.hub_api import license_in, time_in
from mdl.sources.hub_origin import parse_reference
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.sources import SourceContext

KINDS: Final = {"model": "models", "dataset": "datasets"}
SORTS: Final = {"downloads": "downloads", "likes": "likes", "modified": "lastModified"}
MOST: Final = 100
"""How many repositories one answer of the hub has at most."""
_FACTS = ("downloads", "likes", "gated", "private", "lastModified", "tags", "usedStorage")


@value_class
class FoundRepo:
    """A repository of a hub. ``bytes`` is what all its revisions together take there, ``downloads`` those of the last
    30 days, ``modified_at`` a time in ISO 8601; None is what the hub does not say."""

    repo: str
    """The reference that `mdl.get` takes: ``hf:org/name``, ``hf:datasets/org/name``."""
    access: str
    """open, gated or private"""
    license: str | None
    bytes: int | None
    downloads: int | None
    likes: int | None
    modified_at: str | None


def search(
    context: SourceContext, text: str, *, kind: str = "model", sort: str = "downloads", limit: int = 20
) -> list[FoundRepo]:
    """The repositories of the ``kind`` model or dataset whose names hold ``text``, at most ``limit`` of them (1 to
    100), the most of ``sort`` first.

    Raises `UsageError`, `LockError` offline, `AuthError`, `NetworkError`, `ProtocolError`.

    Source: ``GET /api/models?search=…&expand=…`` of the hub.
    """
    for flag, value, choices in (("--kind", kind, KINDS), ("--sort", sort, SORTS)):
        if value not in choices:
            raise UsageError(f"{value!r} is not one of {', '.join(choices)}", item=flag)
    if not 1 <= limit <= MOST:
        raise UsageError(f"'{limit}' is not a number from 1 to {MOST}", item="--limit")
    text = text.encode(errors="replace").decode()
    if not text.strip():
        raise UsageError("an empty text (is a variable not set?)", hint="mdl search whisper")
    http = context.http
    if http is None:
        raise LockError("offline: no hub can be searched", hint=online_hint(context.offline_by))
    words = [("search", text), ("sort", SORTS[sort]), ("limit", str(limit)), *(("expand", fact) for fact in _FACTS)]
    url = f"{context.endpoint.url}/api/{KINDS[kind]}?{urlencode(words)}"
    answer, _, _ = http.retry(url, lambda: http.json("GET", url))
    if not isinstance(answer, list):
        raise ProtocolError("the hub's answer to the search is not a list")
    repositories = []
    for item in answer:
        repository = parse_found_repo(item, kind)
        if repository is not None:
            repositories.append(repository)
    return repositories[:limit]


def parse_found_repo(item: Any, kind: str) -> FoundRepo | None:
    """The repository of an item; None if mdl would refuse its name. Raises `ProtocolError` if it has none."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise ProtocolError("the hub's answer to the search has a repository without a name")
    try:
        origin = parse_reference(f"hf:{repo_path(item['id'], kind)}")
    except MdlError:
        return None
    if origin.repo != item["id"]:
        return None  # a revision, a file, or another kind
    access = "gated" if item.get("gated") else "open"
    if item.get("private") is True:
        access = "private"
    return FoundRepo(
        str(origin),
        access,
        license_in(item.get("tags")),
        _count(item.get("usedStorage")),
        _count(item.get("downloads")),
        _count(item.get("likes")),
        time_in(item.get("lastModified")),
    )


def _count(value: object) -> int | None:
    try:
        return whole_number(value)
    except OutOfBounds:
        return None
