"""Mirrors: what the lock holds in the user's own object stores: put there, looked at, fetched from there, cleaned."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

from mdl.cancel import CancelToken
from mdl.client.base import CallOptions, Targets, Texts
from mdl.client.remotes import Remotes
from mdl.errors import LockError, online_hint
from mdl.listener import Listener
from mdl.units import as_text, parse_duration, texts

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.operations.mirror import Mirror, MirrorReport, MirrorVersion
    from mdl.operations.mirror_clean import MirrorItem
    from mdl.operations.tools import Tools
    from mdl.reports import Report


class Mirrors(Remotes):
    """What a client does with mirrors, which are named by ``s3://bucket/prefix``.

    The keys are those that a bucket needs as a source: ``AWS_…``, ``~/.aws``, or the remote of that bucket.
    """

    def push_mirror(
        self,
        url: str,
        targets: Targets | None = None,
        *,
        read_back: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> MirrorReport:
        """Put the locked files of ``targets``, or of all that is locked, into the mirror at ``url``; each file must be
        on this disk, and is hashed while it is sent. What is there already is kept; with ``read_back`` every object is
        read and hashed afterwards. What fails for one file is in the report. Run it again after any interruption: an
        upload goes on at the part that it had reached. Raises `LockError` for what the lock does not cover, `NotFound`,
        `AuthError`, `NetworkError`, `UsageError`, `Deadline`, `Cancelled`."""
        from mdl.operations.mirror import push

        models, work = self.locked_models(targets), self.workspace
        with self._tools(models, on_event=on_event, cancel=cancel) as tools, self._mirror(url, tools) as mirror:
            mirror.objects.require_keys()
            return push(models, work.lock, tools, mirror, work.throttle, read_back=read_back)

    def pull_mirror(
        self, url: str, targets: Targets | None = None, *, force: bool = False, **options: Unpack[CallOptions]
    ) -> Report:
        """As `download`, of locked models, from the mirror at ``url`` alone. Raises as that, and `LockError` for what
        the lock does not cover."""
        from mdl.operations.mirror import pull

        models = self.locked_models(targets)
        with self._tools(models, **options, mirror=url) as tools, self._mirror(url, tools) as mirror:
            return pull(models, self.workspace.lock, tools, mirror, force=force)

    def check_mirror(
        self,
        url: str,
        targets: Targets | None = None,
        *,
        deep: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> MirrorReport:
        """Compare what the mirror at ``url`` has with the lock: sizes and metadata, or with ``deep`` every byte. What
        is wrong is in the report. Raises as `push_mirror`."""
        from mdl.operations.mirror import check

        models = self.locked_models(targets)
        with self._tools(models, on_event=on_event, cancel=cancel) as tools, self._mirror(url, tools) as mirror:
            return check(models, self.workspace.lock, mirror, deep=deep)

    def mirror_versions(
        self, url: str, names: Texts | None = None, *, cancel: CancelToken | None = None
    ) -> list[MirrorVersion]:
        """Every version of a model that the mirror at ``url`` has, of all models or of these. Raises `NotFound` if
        there is no such bucket, `AuthError`, `NetworkError`, `ProtocolError`, `Cancelled`."""
        from mdl.operations.mirror import versions

        with self._tools([], cancel=cancel) as tools, self._mirror(url, tools) as mirror:
            return versions(mirror, self.workspace.lock, None if names is None else texts(names))

    def clean_mirror(
        self,
        url: str,
        names: Texts | None = None,
        *,
        older_than: float | str = "1d",
        remove: bool = False,
        cancel: CancelToken | None = None,
    ) -> list[MirrorItem]:
        """What in the mirror at ``url`` nobody needs any more: uploads that were not ended, versions that the lock has
        left behind, versions without a marker; deleted only with ``remove``. What is younger than ``older_than``
        seconds, or "7d", and what the lock names, stays. An item that could not be deleted has its ``error``. Raises as
        `mirror_versions`."""
        from mdl.operations.mirror_clean import clean

        seconds, lock = parse_duration(as_text(older_than), "--older-than", least=0), self.workspace.lock
        asked = None if names is None else texts(names)
        with self._tools([], cancel=cancel) as tools, self._mirror(url, tools) as mirror:
            mirror.objects.require_keys()
            return clean(mirror, lock, asked, older_than=seconds, remove=remove, now=time.time())

    def locked_models(self, targets: Targets | None = None) -> list[Model]:
        """The models that ``targets`` mean, or all of the catalog's own that are locked. Raises `LockError` if the lock
        does not cover them, `NotFound`, `CatalogError`, `StateError`."""
        lock = self.workspace.lock
        if targets is None:
            targets = self._own_locked()
        models = self.models(targets)
        if not models:
            raise LockError("nothing is locked", item=str(self.workspace.lock_path), hint="'mdl lock' writes the lock")
        for model in models:
            lock.pin(model, stale=self.workspace.config["frozen"])
        return models

    @contextlib.contextmanager
    def _mirror(self, url: str, tools: Tools) -> Iterator[Mirror]:
        """The mirror at ``url``, to be asked. Raises `UsageError`, `LockError` offline."""
        from mdl.http.allowlist import host_of
        from mdl.mirror.layout import MirrorPlace
        from mdl.mirror.objects import Objects
        from mdl.mirror.sending import Reporter
        from mdl.operations.mirror import Mirror
        from mdl.sources.object_store import Access, Bucket

        work, place = self.workspace, MirrorPlace.parse(url)
        if tools.network is None:
            raise LockError("offline: no mirror can be asked", item=url, hint=online_hint(work.config.offline_by))
        access = Access.of(place.bucket, work.environ, work.remotes)
        with work.network([], tools.network.cancel, [host_of(access.url)], with_lock=False) as network:
            reporter = Reporter(tools.on_event)
            objects = Objects(Bucket(place.bucket, access, work.context(network)), network.http, reporter.on_retry)
            yield Mirror(place, objects.bucket, objects, network.connections, reporter)
