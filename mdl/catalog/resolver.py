"""Resolver: a Model becomes RemoteFiles, by the sources of its origins."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar

from mdl.bounds import LONGEST_SHOWN_NAME
from mdl.catalog.choice_of_weights import Chosen, choose, several
from mdl.catalog.model import CatalogFile, Model
from mdl.disk.pool import in_parallel
from mdl.errors import Cancelled, MdlError, NotFound
from mdl.files import RefusedFile, RemoteFile
from mdl.formatting import counted, listed
from mdl.listener import Event, Listener
from mdl.paths import RelPath, matching, shown
from mdl.sources import Origin, Source, SourceContext, Sources, page_hosts, parse
from mdl.sources.hub_origin import HubOrigin
from mdl.sources.url import UrlSource
from mdl.sources.url_origin import UrlOrigin
from mdl.urls import shown_url
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.net.follower import OpenResponse
    from mdl.net.locators import Body, Link, Locate
    from mdl.net.network import Network

_NAMED = 3
"""How many files a message names."""
IsNew = Callable[[str, RemoteFile], bool]
"""Returns whether nothing of a file of a model is here."""


def nothing_is_new(_model: str, _file: RemoteFile) -> bool:
    """An `IsNew` with which the server of every file is asked before its bytes are."""
    return False


Pin = Callable[[Model, bool], Model]
"""Makes of a model what its lock says; if the second argument is set, with what the lock leaves out of it. May raise
`LockError`."""
Found = TypeVar("Found")
File = TypeVar("File", bound=RemoteFile | RefusedFile)


@value_class
class Resolved:
    """The files of a model. ``failed`` has those that could not be asked about, each with its error; they are among the
    ``files`` as the catalog has them. ``errors`` are of sources whose files are not even known. ``refused`` are those
    whose names cannot be kept on this system. ``left_out`` are the same weights in other formats, which are not
    fetched."""

    files: tuple[RemoteFile, ...]
    failed: Mapping[RelPath, MdlError] = field(default_factory=dict)
    errors: tuple[MdlError, ...] = ()
    refused: tuple[RefusedFile, ...] = ()
    left_out: tuple[RemoteFile | RefusedFile, ...] = ()

    def raise_for_errors(self) -> None:
        """Raises the first error, if there is one."""
        for error in (*self.errors, *self.failed.values()):
            raise error


class _Collected:
    """What the sources of a model answer, before patterns narrow it; see `Resolved`."""

    def __init__(self) -> None:
        self.files: list[RemoteFile | RefusedFile] = []
        self.left_out: list[RemoteFile | RefusedFile] = []
        self.failed: dict[RelPath, MdlError] = {}
        self.errors: list[MdlError] = []


class _Relay:
    """Passes the events of sources, which are asked by several threads, on to a listener in the thread that waits for
    them, with the name of the model that is resolved."""

    def __init__(self, on_event: Listener) -> None:
        self._on_event = on_event
        self._home = threading.get_ident()
        self._waiting: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._of_thread = threading.local()

    @contextlib.contextmanager
    def resolving(self, model: str) -> Iterator[None]:
        """Within the block events of this thread are of the model of this name."""
        self._of_thread.model = model
        try:
            yield
        finally:
            self._of_thread.model = ""

    def post(self, event: Event) -> None:
        """Pass on an event of a source, which names its origin as its model."""
        model = getattr(self._of_thread, "model", "")
        if model:
            event = replace(event, model=model)
        if threading.get_ident() == self._home:
            self._on_event(event)
        else:
            self._waiting.put(event)

    def wait_here(self) -> None:
        """Events are for this thread from now on."""
        self._home = threading.get_ident()

    def deliver(self) -> None:
        """Tell the listener of what other threads posted."""
        while not self._waiting.empty():
            self._on_event(self._waiting.get())


class Resolver:
    """Asks each model's sources for its files. ``context`` and ``open_network`` are as `Sources` has them; without a
    `network` nothing is contacted.

    ``include`` and ``exclude`` narrow every model further, as the command line asked; ``exact`` asks for the commit
    even if a digest would do. ``describe`` says what is known of a model although nobody was asked yet, as a model
    whose files are named, or None.
    """

    def __init__(
        self,
        context: SourceContext,
        open_network: Callable[[Locate], Network | None] | None = None,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        pin: Pin = lambda model, _in_all_formats: model,
        exact: bool = False,
        describe: Callable[[Model], Model | None] = lambda _model: None,
    ) -> None:
        self._on_event = context.on_event
        self._relay = _Relay(context.on_event)
        self._sources = Sources(replace(context, on_event=self._relay.post), open_network)
        self._context = self._sources.context
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._pin = pin
        self._exact = exact
        self._describe = describe
        self._parsed = cache(partial(parse, page_hosts=page_hosts(context.endpoint)))

    # What the sources are, and who they are.

    @property
    def network(self) -> Network | None:
        """The way to the network that the sources use; None offline."""
        return self._context.network

    def source(self, origin: Origin) -> Source:
        """The source that resolves ``origin``."""
        return self._sources.of(origin.scheme)

    def origin(self, file: CatalogFile) -> Origin:
        """Where a file that the catalog names comes from first."""
        return self._parsed(file.url)

    def locate(self, url: str) -> Link | Body:
        """Where the file of a stable URL of any scheme is at this moment. Raises `MdlError`."""
        return self._sources.locate(url)

    def hosts(self, models: Sequence[Model], more: Sequence[str] = ()) -> list[str]:
        """The hosts that these models' files, and the references ``more``, come from; those always allowed left out."""
        origins: list[Origin] = [self._parsed(reference) for reference in more]
        for model in models:
            origins += [*model.sources, *map(self._parsed, model.urls)]
        hosts: list[str] = []
        for origin in origins:
            hosts += self.source(origin).hosts(origin)
        return hosts

    def modified_at(self, model: Model) -> str | None:
        """When the newest of the revisions that were just resolved for a model was changed, if their hub told that."""
        moments: list[str] = []
        for origin in (*model.sources, *map(self.origin, model.files)):
            moment = self.source(origin).modified_at(origin)
            if moment:
                moments.append(moment)
        return max(moments, default=None)

    # The files of models, as their sources have them.

    def resolve(self, model: Model) -> Resolved:
        """The files of the model, at one commit for each repository, of which nothing failed. The listener is told of
        those whose names cannot be kept here.

        Raises `SeveralQuantisations` if only the user can say which files are meant; `NotFound` if the model is gone, a
        pattern names nothing, or nothing is left; `Unsafe` if nothing else is left; and what the sources raise.
        """
        resolved = self.resolve_each(model)
        resolved.raise_for_errors()
        if resolved.refused:
            if not resolved.files:
                raise resolved.refused[0].error
            from mdl.events import Noticed

            self._on_event(Noticed(model.name, message=_without_refused(resolved.refused)))
        return resolved

    def resolve_all(self, models: Sequence[Model], is_new: IsNew = nothing_is_new) -> Iterator[Resolved | MdlError]:
        """`resolve_each` of the models, or the error that it raises, in their order. Several are asked for at once, so
        that one host does not keep the others waiting."""
        yield from self._in_parallel([partial(self.resolve_each, model, is_new) for model in models])

    def resolve_each(self, model: Model, is_new: IsNew = nothing_is_new) -> Resolved:
        """As `resolve`, but what fails for one file or source hinders no other. Raises if nothing is left.

        The servers of URLs are not asked about files that ``is_new`` says are new: see `met`."""
        if model.gone:
            hint = model.note or None
            if model.see:
                hint = f"see {', '.join(model.see)}"
            raise NotFound(f"has no data any more: {model.gone}", item=model.name, hint=hint)
        model = self._pin(model, False)
        with self._relay.resolving(model.name):
            collected = self._collect(model, is_new)
        try:
            narrowed = narrow(collected.files, self._include, self._exclude, model.name)
        except NotFound as error:
            raise next(iter(collected.errors), error) from None
        kept: list[RemoteFile] = []
        refused: list[RefusedFile] = []
        failed: dict[RelPath, MdlError] = {}
        for file in narrowed:
            if isinstance(file, RefusedFile):
                refused.append(file)
                continue
            kept.append(file)
            if file.path in collected.failed:
                failed[file.path] = collected.failed[file.path]
        return Resolved(
            tuple(_sorted(kept)), failed, tuple(collected.errors), tuple(refused), tuple(collected.left_out)
        )

    def _collect(self, model: Model, is_new: IsNew) -> _Collected:
        """Ask every source of a model, and for every file that it names."""
        collected = _Collected()
        for origin in model.sources:
            try:
                chosen = self._of_origin(origin, model, is_new)
            except MdlError as error:
                collected.errors.append(_of_model(error, model))
                continue
            collected.files += chosen.files
            collected.left_out += chosen.left_out
        for file in model.files:
            try:
                collected.files.append(self._named(file, model, is_new))
            except MdlError as error:
                collected.failed[file.path] = _of_file(error, file, model)
                collected.files.append(self.stated(file))
        return collected

    def _of_origin(self, origin: Origin, model: Model, is_new: IsNew) -> Chosen[RemoteFile | RefusedFile]:
        """The files of one source that the model's patterns leave, with one set of weights. An exact answer asks for
        the digests that a listing lacks. Raises `SeveralQuantisations`."""
        if isinstance(origin, UrlOrigin) and self._is_one_file(model):
            unasked = UrlSource(self._context).unasked(origin)
            if model.is_of_catalog:
                unasked = replace(unasked, label=f"{model.name}: {origin.label}")
            if is_new(model.name, unasked):
                return Chosen((unasked,))
        source = self.source(origin)
        files: list[RemoteFile | RefusedFile] = [*source.resolve(origin), *source.refused(origin)]
        chosen = self._chosen(narrow(files, model.include, model.exclude, origin.label), origin, model)
        if chosen.quantisations and isinstance(origin, HubOrigin):
            raise several(chosen.quantisations, origin, is_of_catalog=model.is_of_catalog)
        if not self._exact:
            return chosen
        return replace(chosen, files=tuple(_completed(file, origin, source) for file in chosen.files))

    def _chosen(self, files: Sequence[File], origin: Origin, model: Model) -> Chosen[File]:
        """Choose a set of weights out of the files of one source. Patterns that name files mean all that they match,
        and only a repository of a model is looked at. (ADR 76)"""
        names_files = bool(model.include or self._include)
        if names_files or not origin.is_model_repository:
            return Chosen(tuple(files))
        excluded = matching([str(file.path) for file in files], self._exclude)
        return choose([file for file in files if str(file.path) not in excluded])

    def _is_one_file(self, model: Model) -> bool:
        """Return whether a model has one source, whose files no pattern chooses by their names: a single URL then needs
        no name before it is asked for."""
        patterns = (*model.include, *model.exclude, *self._include, *self._exclude)
        return len(model.sources) + len(model.files) == 1 and not patterns

    def met(self, remote: RemoteFile, opened: OpenResponse, on_event: Listener) -> RemoteFile:
        """An unasked file with what the answer that brings it says about it. Raises `MdlError`."""
        return UrlSource(self._context).met(remote, opened, on_event)

    def probe_all(self, remotes: Sequence[RemoteFile]) -> Iterator[RemoteFile | MdlError]:
        """Ask the servers of files: each file with what is known then, or the error, in their order; several are asked
        at once."""
        source = UrlSource(self._context)
        yield from self._in_parallel([partial(source.probe, remote) for remote in remotes])

    def _in_parallel(self, calls: Sequence[Callable[[], Found]]) -> Iterator[Found | MdlError]:
        """The results in order. Events reach the listener in the caller's thread."""
        self._relay.wait_here()
        network = self._context.network
        connections = network.connections if network else 1
        try:
            yield from in_parallel(calls, connections, self._relay.deliver)
        except (KeyboardInterrupt, Cancelled):
            if network:
                network.cancel.set()  # the other calls end as well
            raise
        self._relay.deliver()

    # What is known without asking.

    def pinned(self, model: Model) -> Model:
        """The model as its lock has it; as it is if none does. Raises `LockError`."""
        return self._pin(model, False)

    def narrowed(self, paths: Iterable[str]) -> set[str]:
        """Those of ``paths`` that the patterns of the command line leave."""
        asked = set(paths)
        if self._include:
            asked = matching(asked, self._include)
        return asked - matching(asked, self._exclude)

    def known(self, model: Model, *, in_all_formats: bool = False) -> list[RemoteFile] | None:
        """As `resolve`, without contacting anything; None if a collection was never listed, or none is named. Of a
        repository with several quantisations it is all of them, and ``in_all_formats`` nothing else is left out
        either."""
        model = self._pin(model, in_all_formats)
        if not model.has_source:
            return None
        files: list[RemoteFile] = []
        for origin in model.sources:
            known = self.source(origin).known(origin)
            if known is None:
                return None
            narrowed = narrow(known, model.include, model.exclude, origin.label)
            if in_all_formats:
                files += narrowed
            else:
                files += self._chosen(narrowed, origin, model).files
        return self._known_files(files, model)

    def described(self, model: Model, *, in_all_formats: bool = False) -> list[RemoteFile] | None:
        """As `known`; of a model whose source was never asked, the files that are to be shown. Sizes and digests of
        these may be missing: a download asks the source."""
        known = self.known(model, in_all_formats=in_all_formats)
        if known is not None:
            return known
        described = self._describe(model)
        if described is None:
            return None
        return self._known_files([], described)

    def _known_files(self, files: list[RemoteFile], model: Model) -> list[RemoteFile]:
        """These files and those that the model names, narrowed as the command line asked."""
        files += map(self._known_file, model.files)
        return _sorted(narrow(files, self._include, self._exclude, model.name))

    def _named(self, file: CatalogFile, model: Model, is_new: IsNew) -> RemoteFile:
        """A file that the catalog names: as it is written there if its digest is known, else as its server says."""
        origin = self._parsed(file.url)
        stated = self.stated(file)
        is_commit_asked = self._exact and origin.repository != ""
        if file.digest is not None and not is_commit_asked:
            return stated
        if isinstance(origin, UrlOrigin) and is_new(model.name, stated):
            label = "" if model.is_of_catalog else origin.label
            return replace(stated, is_left_open=True, label=label)
        return self.source(origin).complete(origin, stated)

    def _known_file(self, file: CatalogFile) -> RemoteFile:
        """The same without asking anything."""
        origin = self._parsed(file.url)
        stated = self.stated(file)
        if file.digest is not None or stated.hub is None:
            return stated
        for known in self.source(origin).known(origin) or ():
            if known.hub and known.hub.path == stated.hub.path:
                return replace(known, path=stated.path, role=stated.role)
        return stated

    def stated(self, file: CatalogFile) -> RemoteFile:
        """The file as the catalog has it, its references as URLs."""
        remote = self._at(file.url, file)
        vouched_by = file.vouched_by
        if file.digest is not None and remote.digest == file.digest:
            vouched_by = remote.vouched_by
        hub = remote.hub
        if hub is not None:
            hub = replace(hub, branch=file.branch)
        return replace(
            remote,
            size=file.size,
            digest=file.digest,
            vouched_by=vouched_by,
            mirrors=tuple(self._at(mirror, file).url for mirror in file.mirrors),
            places=tuple(self._at(place, file).url for place in file.places),
            role=file.role,
            hub=hub,
        )

    def _at(self, reference: str, file: CatalogFile) -> RemoteFile:
        """The file as one of its references alone has it."""
        origin = self._parsed(reference)
        return self.source(origin).file(origin, file.path)


def _completed(file: RemoteFile | RefusedFile, origin: Origin, source: Source) -> RemoteFile | RefusedFile:
    """The file with the digest that a listing lacks."""
    if isinstance(file, RefusedFile) or file.digest is not None or file.probed:
        return file
    return source.complete(origin, file)


def _without_refused(refused: Sequence[RefusedFile]) -> str:
    names = listed([shown(file.path)[:LONGEST_SHOWN_NAME] for file in refused], most=_NAMED)
    return f"{counted(len(refused), 'file')} left out, whose names cannot be kept here: {names}"


def _sorted(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    return sorted(files, key=lambda file: file.path)


def _of_file(error: MdlError, file: CatalogFile, model: Model) -> MdlError:
    """The same error; if its item is no more than the file's path, it names the model too, or else the URL."""
    if error.item in (None, file.path.text):
        if model.is_of_catalog:
            return error.but(item=f"{model.name}/{file.path.text}")
        return error.but(item=shown_url(file.url))
    return _of_model(error, model)


def _of_model(error: MdlError, model: Model) -> MdlError:
    """The same error; its item names the model of the catalog."""
    if model.is_of_catalog and error.item and not error.item.startswith(model.name):
        return error.but(item=f"{model.name}: {error.item}")
    return error


def narrow(files: list[File], include: Sequence[str], exclude: Sequence[str], item: str) -> list[File]:
    """Return the files that the patterns leave. Raises `NotFound` for a pattern that names nothing."""
    paths = {str(file.path) for file in files}
    if include:
        included: set[str] = set()
        for pattern in include:
            matched = matching(paths, (pattern,))
            if not matched:
                available = ", ".join([str(file.path) for file in files[:5]])
                raise NotFound(f"nothing matches {pattern!r}", item=item, hint=f"available: {available}")
            included |= matched
        paths = included
    paths -= matching(paths, exclude)
    if not paths:
        raise NotFound("no file is left after --exclude", item=item)
    return [file for file in files if str(file.path) in paths]
