"""Sources: where files come from. A reference (``hf:org/repo``, a URL) becomes an `Origin`, and its `Source` lists
the files.

A new source is one module here, with a function ``parse(text, page_hosts) -> Origin`` and a function
``open_source(context) -> Source``, and one line in `SOURCES`; or such a module of a plug-in, which names it
(`mdl.plugin`).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from mdl.errors import UsageError
from mdl.files import RefusedFile, RemoteFile
from mdl.hashing import Digest
from mdl.listener import Listener, silence
from mdl.paths import RelPath, shown
from mdl.plugin import plugins
from mdl.redact import bare_url
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.config.remotes import RemoteSettings
    from mdl.net.client import HttpClient
    from mdl.net.locators import Body, Link, Locate
    from mdl.net.network import Network
    from mdl.net.policy import Again
    from mdl.sources.hub_endpoint import Endpoint

SOURCES = {
    "hf": "mdl.sources.hub",
    "http": "mdl.sources.url",
    "https": "mdl.sources.url",
    "job": "mdl.results.base",
    "s3": "mdl.sources.s3",
}
"""The module that reads the references of each scheme. It is imported when the first of them is read."""

HUB_HOSTS = ("huggingface.co", "hf.co", "www.huggingface.co")
"""The hosts whose pages may be written instead of ``hf:…``, whatever endpoint is set."""


class Origin:
    """Where files come from, as a frozen value. ``str(origin)`` is its one canonical text, which `parse` reads back."""

    scheme: ClassVar[str]
    """A key of `SOURCES`, or of the ``sources`` of a plug-in."""

    @property
    def revision(self) -> str | None:
        """The branch, tag or commit that is named; None for the default one, and if there are no revisions."""
        return None

    @property
    def branch(self) -> str:
        """The branch or tag that is followed; '' for a commit, and if there are no revisions."""
        return ""

    @property
    def subpath(self) -> str:
        """The one file or folder of it that is meant; '' for all."""
        return ""

    @property
    def is_whole(self) -> bool:
        """Return whether all is meant, and not a part of it."""
        return not self.subpath

    @property
    def is_model_repository(self) -> bool:
        """Return whether it is a repository of a model, which may have the same weights in several formats."""
        return False

    @property
    def repository(self) -> str:
        """The canonical text without revision and path; '' if there are no revisions."""
        return ""

    @property
    def id(self) -> str:
        """The name of it in events and jobs: no revision, no path in a repository, no query."""
        return self.repository or bare_url(str(self))

    def holds(self, place: Origin) -> bool:
        """Return whether ``place`` is this origin, or something below it if this one may stand for a folder."""
        return self == place

    @property
    def label(self) -> str:
        """How people are told of it: the canonical text without what may be secret."""
        return str(self)

    @property
    def kind(self) -> str:
        """The kind of a model that is named by this reference alone."""
        return "model"

    @property
    def file_name(self) -> RelPath:
        """The name of the one file that it means. Raises `UsageError` if it is certainly a collection."""
        raise UsageError("names no single file", item=str(self))

    def check_is_file(self) -> None:
        """Raises `UsageError` if it certainly is a collection of files."""
        _ = self.file_name

    @property
    def folder(self) -> str:
        """The name of the folder of its files if no catalog gives them one."""
        raise NotImplementedError

    def of_quantisation(self, name: str) -> Origin:
        """The quantisation of this name of the same repository. Raises `UsageError` if it is no repository."""
        raise UsageError("has no quantisations", item=self.label, hint="they are those of repositories (hf:org/repo)")

    def at(self, revision: str) -> Origin:
        """The same files at another revision. Raises `UsageError` if there are no revisions, or for a wrong one."""
        raise UsageError("has no revisions", item=self.label, hint="--revision is for repositories (hf:org/repo)")


@value_class
class RepoFacts:
    """The facts of a repository: the commit of the revision that was asked for, the licence of its card, whether its
    owners have to agree before a user gets the files (``is_gated``), and when it was changed last (ISO 8601)."""

    commit: str | None
    license: str | None
    is_gated: bool
    is_private: bool
    updated_at: str | None


class Source:
    """A kind of place that files come from. Its methods are called from several threads at once.

    A source has to have `resolve`, `file` and `complete`; the others say what holds of a server that has nothing but
    files under http(s) URLs.
    """

    def resolve(self, origin: Any) -> list[RemoteFile]:
        """Every file of ``origin``, at one revision. Asks the network; a branch becomes a commit here, once. Offline it
        is what was kept of an earlier answer.

        Raises `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, `Unsafe`; `LockError` if it is offline and
        nothing was kept.
        """
        raise NotImplementedError

    def refused(self, _origin: Any) -> list[RefusedFile]:
        """The files of ``origin`` whose names cannot be kept on this system. Raises as `resolve`."""
        return []

    def known(self, _origin: Any) -> list[RemoteFile] | None:
        """As `resolve`, without any network, from what was kept of an earlier answer; None if nothing was."""
        return None

    def file(self, origin: Any, path: RelPath) -> RemoteFile:
        """The one file that ``origin`` names, which is to go to ``path``, as far as the reference itself tells.

        Raises `UsageError` if it names no single file.
        """
        raise NotImplementedError

    def complete(self, origin: Any, stated: RemoteFile) -> RemoteFile:
        """``stated`` is a file with what the catalog says of it; returned with what the server adds (size, digest,
        commit). Asks the network; raises as `resolve`, and `DigestMismatch` if the two contradict each other."""
        raise NotImplementedError

    def hosts(self, _origin: Any) -> tuple[str, ...]:
        """The hosts, as the allow-list takes them, that are asked for ``origin`` beyond those always allowed."""
        return ()

    def locate(self, url: str) -> Link | Body:
        """Where the file of a stable URL of this source's scheme is at this moment: a link, or the body itself. May ask
        the network; raises as `resolve`."""
        from mdl.net.locators import Link

        return Link(url)

    def facts(self, _origin: Any) -> RepoFacts | None:
        """Ask for the facts of the repository of ``origin``, at this moment; None if there is none. Raises as
        `resolve`."""
        return None

    def modified_at(self, _origin: Any) -> str | None:
        """When the revision that was just resolved was last changed (ISO 8601, UTC); None if the source did not say."""
        return None


class Sources:
    """The sources of one operation. Each is opened when it is first asked for, by whichever thread.

    ``open_network`` opens the way to the network, None offline, for a client that asks `locate` for the files of other
    schemes than http(s). Without it the network is that of ``context``.
    """

    def __init__(self, context: SourceContext, open_network: Callable[[Locate], Network | None] | None = None) -> None:
        if open_network is not None:
            context = replace(context, network=open_network(self.locate))
        self.context = context
        self._opened: dict[str, Source] = {}
        self._lock = threading.Lock()

    def of(self, scheme: str) -> Source:
        """The source of a scheme of `SOURCES`, or of a plug-in."""
        with self._lock:
            if scheme not in self._opened:
                self._opened[scheme] = open_source(scheme, self.context)
            return self._opened[scheme]

    def locate(self, url: str) -> Link | Body:
        """Where the file of a stable URL of any scheme is at this moment. Raises `MdlError`."""
        return self.of(_scheme_of(url) or "https").locate(url)


CachedListing = tuple[str, Sequence[tuple[str, int | None, Digest]], bool]
"""The commit of a revision; the path, size and digest of each of its files; and whether it is known that these are all
of them."""


@value_class
class SourceContext:
    """The means of a source. ``network`` is None offline; ``folder`` is where answers are kept, and ``keeps`` says
    whether new ones may be; ``on_event`` may be called from any thread. ``remotes`` are the tables ``[remotes.NAME]``.
    ``cached`` tells what the cache of the hub's client has of a repository, by the text of its reference.
    """

    endpoint: Endpoint
    folder: Path
    network: Network | None = None
    on_event: Listener = silence
    environ: Mapping[str, str] = field(default_factory=dict)
    remotes: Mapping[str, RemoteSettings] = field(default_factory=dict)
    keeps: bool = True
    offline_by: str = ""
    """The flag, variable or setting that keeps mdl offline."""
    cached: Callable[[str], CachedListing | None] = lambda _reference: None

    @property
    def http(self) -> HttpClient | None:
        """The HTTP client, which is opened now if it was not before; None offline."""
        return self.network.http if self.network else None

    def on_retry(self, model: str = "", file: str = "") -> Callable[[Again], None]:
        """The function that `HttpClient.retry` calls before it asks again, so that the listener hears of it."""
        from mdl.events import Retrying

        return lambda again: self.on_event(Retrying.of(again, model, file))


def page_hosts(endpoint: Endpoint) -> tuple[str, ...]:
    """The hosts, as `parse` takes them, whose pages are the hub's; the endpoint counts only with its port."""
    return (*HUB_HOSTS, urlsplit(endpoint.url).netloc.lower())


def reference_forms() -> list[str]:
    """How the references that a user may write begin, those of plug-ins too: ``http://``, ``hf:`` and so on."""
    schemes = [scheme for scheme in SOURCES if scheme not in ("http", "https", "hf", "job")]
    schemes += _modules_of_plugins()
    return ["http://", "https://", "hf:", *(f"{scheme}://" for scheme in schemes)]


def is_reference(text: str) -> bool:
    """Return whether ``text`` says by itself where files come from; any other text is a name of the catalog."""
    return _scheme_of(text) is not None


def parse(text: str, page_hosts: Collection[str] = HUB_HOSTS) -> Origin:
    """The origin that a reference means; an http(s) page of the hub on ``page_hosts`` is the hub's.

    Raises `UsageError` for anything that is not a reference, `Unsafe` for a path that is not safe.
    """
    scheme = _scheme_of(text)
    if scheme is None:
        hint = "write hf:org/repo, hf:org/repo@revision/path or https://…"
        raise UsageError("not a reference to a source", item=shown(text)[:200], hint=hint)
    written, _, rest = text.partition(":")
    if written.lower() == scheme:
        text = f"{scheme}:{rest}"
    origin: Origin = _module_of(scheme).parse(text, page_hosts)
    return origin


def _scheme_of(text: str) -> str | None:
    """The scheme of `SOURCES`, or of a plug-in, that reads ``text``, in whatever letters it is written. What looks like
    a URL of another scheme is read as one of https, whose parser says what is wrong with it."""
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if colon and scheme in SOURCES:
        return scheme
    if not rest.startswith("//"):
        return None
    if scheme in _modules_of_plugins():
        return scheme
    return "https"


def open_source(scheme: str, context: SourceContext) -> Source:
    """The source of a scheme of `SOURCES`, or of a plug-in."""
    source: Source = _module_of(scheme).open_source(context)
    return source


def _module_of(scheme: str) -> Any:
    """The module that reads the references of a scheme."""
    if scheme in SOURCES:
        return importlib.import_module(SOURCES[scheme])
    return importlib.import_module(_modules_of_plugins()[scheme])


def _modules_of_plugins() -> dict[str, str]:
    """The module that reads the references of each scheme that a plug-in adds."""
    modules: dict[str, str] = {}
    for plugin in plugins():
        modules |= plugin.sources
    return modules
