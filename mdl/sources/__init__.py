"""Sources: a Model becomes RemoteFiles. One family, picked by where the model says it comes from."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mdl.catalog.model import CatalogFile, HubOrigin, Model
from mdl.errors import Cancelled, DigestMismatch, MdlError, NotFound
from mdl.events import Event, Listener, Noticed, silence
from mdl.files import RemoteFile
from mdl.globs import matches
from mdl.hashing import Digest
from mdl.paths import refuse_twins
from mdl.sources.direct import DirectSource, hub_origin, remote_of
from mdl.sources.endpoint import Endpoint
from mdl.sources.hub import HubSource, lacks_data
from mdl.sources.listings import Listings
from mdl.threads import in_parallel

if TYPE_CHECKING:
    from mdl.http.client import Http

Found = TypeVar("Found")


class Sources:
    """All of them behind one question. Without ``http`` nobody is contacted.

    ``include`` and ``exclude`` narrow every model further, as the command line asked; ``pin`` makes of a model what
    its lock says, and may raise `LockError`; ``exact`` asks for the commit also where a digest would do.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        listings: Listings,
        http: Http | None = None,
        *,
        tell: Listener = silence,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        pin: Callable[[Model], Model] = lambda model: model,
        exact: bool = False,
    ) -> None:
        self.endpoint, self._http = endpoint, http
        self._home = threading.get_ident()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._hub = HubSource(endpoint, listings, http, self._post)
        self._direct = DirectSource(http, self._post)
        self._tell, self._include, self._exclude, self._pin = tell, tuple(include), tuple(exclude), pin
        self._exact = exact

    def resolve(self, model: Model) -> list[RemoteFile]:
        """Every file of the model, at one commit for each repository.

        Raises `NotFound` where the model is gone, a pattern names nothing, or nothing is left; and what the
        sources raise.
        """
        _refuse_gone(model)
        model = self._pin(model)
        files: list[RemoteFile] = []
        for origin in model.sources:
            found = self._hub.resolve(origin)
            if origin.repo_type == "dataset" and lacks_data(found):
                self._post(Noticed(model.name, message=f"{origin} holds no data files, only cards and loader scripts"))
            files += _narrow(found, model.include, model.exclude, str(origin))
        files += [self._named(file) for file in model.files]
        return self._checked(model, files)

    def resolve_all(self, models: Sequence[Model]) -> Iterator[list[RemoteFile] | MdlError]:
        """`resolve` of each model, or the error that it raises, in their order. Several are asked for at once, so that
        one host does not keep the others waiting."""
        yield from self._in_parallel([partial(self.resolve, model) for model in models])

    def probe_all(self, remotes: Sequence[RemoteFile]) -> Iterator[RemoteFile | MdlError]:
        """What each file's server tells of it, or the error, in their order; several are asked at once."""
        yield from self._in_parallel([partial(self._direct.probe, remote) for remote in remotes])

    def _in_parallel(self, calls: Sequence[Callable[[], Found]]) -> Iterator[Found | MdlError]:
        """The results in order. Events reach the listener in the caller's thread."""
        self._home = threading.get_ident()
        http = self._http
        try:
            yield from in_parallel(calls, http.connections if http else 1, self._look)
        except (KeyboardInterrupt, Cancelled):
            if http:
                http.cancel.set()  # the other calls end as well
            raise
        self._look()

    def _post(self, event: Event) -> None:
        if threading.get_ident() == self._home:
            self._tell(event)
        else:
            self._events.put(event)

    def _look(self) -> None:
        while not self._events.empty():
            self._tell(self._events.get())

    def known(self, model: Model) -> list[RemoteFile] | None:
        """As `resolve`, without contacting anybody; None where a repository was never listed, or none is named."""
        model = self._pin(model)
        files: list[RemoteFile] = []
        if not model.sources and not model.files:
            return None
        for origin in model.sources:
            found = self._hub.known(origin)
            if found is None:
                return None
            files += _narrow(found, model.include, model.exclude, str(origin))
        for file in model.files:
            files.append(self._known_file(file))
        return self._checked(model, files)

    def _named(self, file: CatalogFile) -> RemoteFile:
        """A file the catalog names: as it stands where its digest is known, else as the hub or its server says."""
        origin = hub_origin(file.url, self.endpoint)
        if file.digest is not None and (origin is None or not self._exact):
            return remote_of(file, self.endpoint)
        if origin is None:
            return self._direct.probe(remote_of(file, self.endpoint))
        found = _placed(file, origin, self._hub.resolve(origin))
        if file.digest and found.digest and _disagree(file.digest, found.digest):
            raise DigestMismatch(f"the hub has {found.digest}, the catalog says {file.digest}", item=file.path.text)
        return replace(found, digest=file.digest or found.digest)

    def _known_file(self, file: CatalogFile) -> RemoteFile:
        origin = hub_origin(file.url, self.endpoint) if file.digest is None else None
        listed = self._hub.known(origin) if origin else None
        return _placed(file, origin, listed) if origin and listed else remote_of(file, self.endpoint)

    def _checked(self, model: Model, files: list[RemoteFile]) -> list[RemoteFile]:
        narrowed = _narrow(files, self._include, self._exclude, model.name)
        refuse_twins(file.path for file in narrowed)
        return sorted(narrowed, key=lambda file: file.path)


def _disagree(one: Digest, other: Digest) -> bool:
    return one.algorithm == other.algorithm and one != other


def _placed(file: CatalogFile, origin: HubOrigin, listed: list[RemoteFile]) -> RemoteFile:
    """The hub's file under the path the catalog gives it."""
    for remote in listed:
        if remote.path.text == origin.subpath:
            return replace(remote, path=file.path, role=file.role)
    raise NotFound("names a folder, not a file", item=file.url)


def _refuse_gone(model: Model) -> None:
    if model.gone:
        hint = f"see {', '.join(model.see)}" if model.see else model.note or None
        raise NotFound(f"has no data any more: {model.gone}", item=model.name, hint=hint)


def _narrow(files: list[RemoteFile], include: Sequence[str], exclude: Sequence[str], item: str) -> list[RemoteFile]:
    """What the patterns leave. Raises `NotFound` for a pattern that names nothing."""
    for pattern in include:
        if not any(matches(file.path.text, (pattern,)) for file in files):
            names = ", ".join(file.path.text for file in files[:5])
            raise NotFound(f"nothing matches {pattern!r}", item=item, hint=f"there is {names}")
    kept = [file for file in files if not include or matches(file.path.text, include)]
    kept = [file for file in kept if not matches(file.path.text, exclude)]
    if not kept:
        raise NotFound("no file is left after --exclude", item=item)
    return kept
