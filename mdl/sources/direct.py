"""Direct URLs and CDNs: what a catalog or a command line names by itself.

A server need not answer HEAD, or may answer it wrongly, so the first byte is asked for instead: the answer
tells the size, whether ranges are served, and what the file is called by its validator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mdl.catalog.model import CatalogFile, HubOrigin, is_pinned
from mdl.catalog.references import parse_hub, parse_hub_page
from mdl.errors import MdlError, UsageError
from mdl.events import Listener, Retrying
from mdl.files import HubFile, RemoteFile
from mdl.hashing import Digest
from mdl.http.answers import announced_size, parse_size, validator_of
from mdl.sources.endpoint import Endpoint

if TYPE_CHECKING:
    from mdl.http.client import Http


def hub_origin(url: str, endpoint: Endpoint) -> HubOrigin | None:
    """The repository file behind ``hf:…`` or a page of the hub; None for any other URL."""
    return parse_hub(url) if url.startswith("hf:") else parse_hub_page(url, endpoint.page_hosts)


def stable_url(url: str, endpoint: Endpoint) -> str:
    """The URL to ask: a page of the hub becomes the resolve URL at the endpoint in use."""
    origin = hub_origin(url, endpoint)
    if origin is None:
        return url
    if not origin.subpath:
        raise UsageError("names a repository, not a file", item=url)
    return endpoint.resolve_url(origin, origin.revision or "main", origin.subpath)


def remote_of(file: CatalogFile, endpoint: Endpoint) -> RemoteFile:
    """A catalog's file as it stands there, without asking anybody."""
    origin = hub_origin(file.url, endpoint)
    return RemoteFile(
        path=file.path,
        url=stable_url(file.url, endpoint),
        size=file.size,
        digest=file.digest,
        commit=origin.revision if origin and is_pinned(origin.revision) else None,
        mirrors=tuple(stable_url(mirror, endpoint) for mirror in file.mirrors),
        role=file.role,
        hub=_hub_file(origin, file.branch) if origin else None,
    )


def _hub_file(origin: HubOrigin, branch: str) -> HubFile:
    return HubFile(origin.repo, origin.repo_type, origin.revision or "main", origin.subpath, branch)


class DirectSource:
    """Asks servers what they have under a URL."""

    def __init__(self, http: Http | None, tell: Listener) -> None:
        self._http, self._tell = http, tell

    def probe(self, remote: RemoteFile) -> RemoteFile:
        """The same file with what its server tells of it. The mirrors are asked where the first server fails
        and a digest is known. Raises `MdlError` of the first server."""
        http = self._http
        if http is None or remote.probed:
            return remote
        first: MdlError | None = None
        for url in (remote.url, *(remote.mirrors if remote.digest else ())):
            try:
                return http.patience.ask(
                    url,
                    lambda url=url: self._probe(http, remote, url),  # type: ignore[misc]
                    lambda error, failure, delay: self._tell(
                        Retrying(file=remote.path.text, why=error.message, attempt=failure, delay=delay)
                    ),
                )
            except MdlError as error:
                first = first or error
        assert first is not None
        raise first.on(remote.path.text)

    def _probe(self, http: Http, remote: RemoteFile, url: str) -> RemoteFile:
        with http.open("GET", url, {"Range": "bytes=0-0"}, allow=(416,)) as opened:
            names, pinned = (remote.path.text, url), remote.digest is not None
            size = announced_size(opened.status, opened.headers, names, pinned=pinned)
            validator = validator_of(opened.headers)
            digest, commit = remote.digest, remote.commit
            for headers in opened.hops:
                digest = digest or Digest.of_etag(headers.get("x-linked-etag"))
                commit = commit or headers.get("x-repo-commit")
                size = size if size is not None else parse_size(headers.get("x-linked-size", ""))
            digest = digest or Digest.of_etag(opened.headers.get("x-linked-etag"))
        known = remote.size if remote.size is not None else size
        return replace(remote, size=known, digest=digest, commit=commit, validator=validator, probed=True)
