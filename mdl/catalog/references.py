"""References: the texts that say where files come from, checked and read into values. Pure.

``hf:org/repo@revision/path``, a hub page copied from a browser, or a plain http(s) URL. Nothing here
contacts anybody; a reference that cannot be right is refused before a socket is opened.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import SplitResult, unquote, urlsplit

from mdl.catalog.model import HubOrigin
from mdl.errors import CatalogError, UsageError
from mdl.paths import RelPath, shown
from mdl.redact import bare_url

HUB_HOSTS = frozenset({"huggingface.co", "hf.co"})
"""The hosts whose pages a catalog may name instead of ``hf:``."""

_TYPES = {"datasets": "dataset", "spaces": "space"}
_FORMS = "write hf:org/repo, hf:org/repo@revision or hf:org/repo@revision/path/in/repo"
_ID_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,255}")
_FILE_PAGES = {"tree", "blob", "resolve", "raw"}
_OTHER_PAGES = {"blame", "commit", "commits", "discussions", "edit", "settings"}
_NOT_REPOS = {
    *("api", "blog", "chat", "collections", "datasets", "docs", "join", "kernels", "learn", "login", "logout"),
    *("models", "new", "notifications", "organizations", "papers", "posts", "pricing", "search", "settings"),
    *("spaces", "tasks"),
}


def parse_hub(text: str) -> HubOrigin:
    """Read ``hf:[datasets/|spaces/]org/repo[@revision][/path]``; ``hf://…`` is the same.

    A bare id (``hf:gpt2``) is legal; to name a path in it, name its revision too (``hf:gpt2@main/config.json``).
    A revision with slashes is ``refs/pr/N``, ``refs/convert/NAME`` or percent-encoded (``feature%2Fx``).
    Raises `UsageError` for what is no hub reference, `Unsafe` for a path that is not safe.
    """
    if not text.startswith("hf:"):
        raise UsageError("not a hub reference", item=shown(text)[:200], hint=_FORMS)
    rest = text.removeprefix("hf:").removeprefix("//").rstrip("/")
    segments = rest.split("/")
    repo_type = _TYPES.get(segments[0], "model")
    if repo_type != "model":
        segments = segments[1:] or [""]
    length = 1 if "@" in segments[0] else 2
    *owner, last = segments[:length]
    name, at, revision = last.partition("@")
    repo, tail = "/".join([*owner, name]), segments[length:]
    why = _why_bad_id(repo)
    if why:
        raise UsageError(f"not a repository id: {why}", item=shown(text)[:200], hint=_FORMS)
    if not at:
        return _origin(repo_type, repo, None, tail)
    return _origin(repo_type, repo, *_take_revision([revision, *tail]))


def parse_hub_page(url: str, hosts: Collection[str]) -> HubOrigin | None:
    """Read a page of the hub as people copy it from a browser: a repository, ``/tree/``, ``/blob/`` or ``/resolve/``.

    ``hosts`` are ``host`` (any port) or ``host:port``. None when ``url`` is not such a page. Raises `UsageError`
    for ``/raw/`` and for pages that hold no file, `Unsafe` for a path that is not safe.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return None
    if not {(parts.hostname or "").lower(), parts.netloc.lower()} & {host.lower() for host in hosts}:
        return None
    segments = parts.path.strip("/").split("/")
    repo_type = _TYPES.get(segments[0], "model")
    if repo_type != "model":
        segments = segments[1:]
    if not segments or (repo_type == "model" and segments[0] in _NOT_REPOS):
        return None
    at = next((i for i in (1, 2) if len(segments) > i + 1 and segments[i] in _FILE_PAGES), None)
    if at is None and len(segments) > 2:
        _refuse_other_page(segments[1:3], url)
        return None
    repo = "/".join(segments[: at or 2])
    if _why_bad_id(repo):
        return None
    if at is None:
        return HubOrigin(repo, repo_type)
    if segments[at] == "raw":
        hint = "write /resolve/ instead of /raw/"
        raise UsageError("/raw/ serves a pointer instead of a large file", item=_redacted(url), hint=hint)
    revision, path = _take_revision(segments[at + 1 :])
    return _origin(repo_type, repo, revision, [unquote(segment) for segment in path])


def _refuse_other_page(segments: list[str], url: str) -> None:
    for page in _OTHER_PAGES.intersection(segments):
        hint = "give the repository, or the file's /resolve/ URL"
        raise UsageError(f"a /{page}/ page of the hub holds no file", item=_redacted(url), hint=hint)


def _origin(repo_type: str, repo: str, revision: str | None, path: list[str]) -> HubOrigin:
    subpath = "/".join(path)
    if subpath:
        RelPath.parse(subpath)
    return HubOrigin(repo, repo_type, revision, subpath)


def _take_revision(segments: list[str]) -> tuple[str, list[str]]:
    """Split ``segments`` into the revision they begin with (percent-decoded) and the rest (as it stands)."""
    revision, rest = unquote(segments[0]), segments[1:]
    if revision == "refs":
        revision, rest = "/".join(["refs", *map(unquote, segments[1:3])]), segments[3:]
        if not re.fullmatch(r"refs/(pr/[0-9]+|convert/[^/]+)", revision):
            hint = "write refs/pr/N or refs/convert/NAME, or percent-encode the revision's slashes"
            raise UsageError("not a revision of the hub", item=shown(revision)[:200], hint=hint)
    return check_revision(revision), rest


def check_revision(text: str) -> str:
    """``text`` if it can be a branch, tag, ref or commit. Raises `UsageError`."""
    odd = ".." in text or "//" in text or text[:1] in "-/" or text[-1:] in "/."
    if odd or not _REVISION.fullmatch(text) or not text.isprintable():
        hint = "a revision is a branch, a tag or a commit"
        raise UsageError("not a revision", item=shown(text)[:200], hint=hint)
    return text


def _why_bad_id(repo: str) -> str | None:
    """Why ``repo`` cannot be the id of a repository (the hub's own rules), or None."""
    parts = repo.split("/")
    if not repo:
        return "it is empty"
    if not all(_ID_PART.fullmatch(part) for part in parts):
        return "letters, digits, '-', '_' and '.' only, at most 96, not beginning or ending with '-' or '.'"
    if any("--" in part or ".." in part or part.endswith(".git") for part in parts):
        return "'--', '..' and a '.git' ending are not allowed"
    return None


def check_url(url: str) -> str:
    """``url`` if it is an absolute http(s) URL that everybody reads alike; its scheme comes back in lower case.

    Raises `CatalogError`. The message never repeats the URL, which may hold a secret.
    """
    parts = _split(url)
    why, hint = _why_bad_url(url, parts)
    if why or parts is None:
        raise CatalogError(f"not a usable URL: {why}", item=_redacted(url), hint=hint)
    return parts.scheme + url[len(parts.scheme) :]


def file_url(url: str) -> str:
    """As `check_url`, without a ``#fragment``: no server is told of it, and it tells nothing of a file."""
    return check_url(url).partition("#")[0]


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _why_bad_url(url: str, parts: SplitResult | None) -> tuple[str | None, str | None]:
    """What is wrong with ``url`` and what to do about it; (None, None) when it is fine."""
    if " " in url or not url.isprintable():
        return "a blank, control or invisible character", "percent-encode it"
    if "\\" in url:
        return "a backslash", "percent-encode it"
    if parts is None:
        return "malformed host", None
    if "@" in parts.netloc:
        return "a user name or password", "never put secrets in URLs; a token comes from the environment"
    if parts.scheme == "s3":
        return "s3:// sources are not supported yet", None
    if parts.scheme not in ("http", "https"):
        return "only http:// and https://", "write https://… or hf:org/repo"
    if not parts.hostname:
        return "no host", "write https://host/path"
    if not re.fullmatch(r"(\[[^\[\]]*\])?(:[0-9]*)?|[^\[\]]*", parts.netloc):
        return "something beside the bracketed address", "write https://[address]:port/path"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        return "a port must be 1 to 65535", None
    return _why_bad_host(parts.hostname, bracketed=parts.netloc.startswith("["))


def _why_bad_host(host: str, *, bracketed: bool) -> tuple[str | None, str | None]:
    """Refuse what is no host name and every spelling of an address but the usual one."""
    if bracketed:
        try:
            address = IPv6Address(host)
        except AddressValueError:
            return "not an IPv6 address", None
        if address.scope_id:
            return "an address with a zone", None
        if address.ipv4_mapped:
            return "an odd spelling of an address", f"write {address.ipv4_mapped}"
        return (None, None) if str(address) == host else ("an odd spelling of an address", f"write [{address}]")
    if not host.isascii():
        return "a host name beyond ASCII", "write its xn-- form"
    labels = host.removesuffix(".").split(".")
    if not all(re.fullmatch(r"[a-z0-9_-]{1,63}", label) for label in labels) or len(host) > 253:
        return "not a host name", None
    if re.fullmatch(r"0x[0-9a-f]*|[0-9]+", labels[-1]):
        try:
            IPv4Address(host)
        except AddressValueError:
            return "an odd spelling of an address", "write it as four decimal numbers, such as 127.0.0.1"
    return None, None


def url_name(url: str) -> RelPath:
    """The file name a URL or ``hf:`` reference ends in, percent-decoded and without ``;parameters`` if it is a URL.

    Raises `UsageError` where there is none, `Unsafe` where it is not safe.
    """
    if url.startswith("hf:"):
        name = parse_hub(url).subpath.rpartition("/")[2]
    else:
        name = unquote(urlsplit(bare_url(url)).path.rpartition("/")[2])
    if not name or "/" in name:
        raise UsageError("the URL ends in no file name", item=_redacted(url), hint="say which path it gets")
    return RelPath.parse(name)


def _redacted(url: str) -> str:
    """``url`` for a message: bare, and nothing a terminal would obey."""
    return shown(bare_url(url))[:200]
