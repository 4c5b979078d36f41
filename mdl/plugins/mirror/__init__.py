"""Mirrors: what the lock holds in the user's own object stores: put there, looked at, fetched from there, cleaned.

    from mdl.plugins import mirror

    mirror.push(mdl.Client(), "s3://models/mirror", ["bert-fa"])

A mirror is named by ``s3://bucket/prefix``. The keys are those that a bucket needs as a source: ``AWS_…``, ``~/.aws``,
or the remote of that bucket.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

from mdl.cancel import CancelToken
from mdl.errors import LockError, online_hint
from mdl.listener import Listener
from mdl.plugin import Plugin, PluginCommand
from mdl.units import as_text, parse_duration, texts

if TYPE_CHECKING:
    from mdl.catalog.targets import Targets
    from mdl.client import CallOptions, Client
    from mdl.context import Context
    from mdl.plugins.mirror.cleaning import MirrorItem
    from mdl.plugins.mirror.operation import Mirror, MirrorReport, MirrorVersion
    from mdl.reports import Report
    from mdl.units import Texts

PLUGIN = Plugin(
    commands={"mirror": PluginCommand("mdl.plugins.mirror.command", "Keep what is locked in your own object store")},
    heading="Many machines",
    habits={"upload": "mdl push FOLDER hf:ORG/REPO for a trained model; mdl mirror push URL NAME for what is locked"},
)


def push(
    client: Client,
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
    from mdl.plugins.mirror import operation

    models = client.locked_models(targets)
    with client.context(models, on_event=on_event, cancel=cancel) as context, _opened(client, url, context) as mirror:
        mirror.bucket.require_keys()
        return operation.push(models, client.catalogs.lock, context, mirror, read_back=read_back)


def pull(
    client: Client, url: str, targets: Targets | None = None, *, force: bool = False, **options: Unpack[CallOptions]
) -> Report:
    """As `Client.download`, of locked models, from the mirror at ``url`` alone. Raises as that, and `LockError` for
    what the lock does not cover."""
    from mdl.plugins.mirror import operation

    models = client.locked_models(targets)
    with client.context(models, **options, mirror=url) as context, _opened(client, url, context) as mirror:
        return operation.pull(models, client.catalogs.lock, context, mirror, force=force)


def check(
    client: Client,
    url: str,
    targets: Targets | None = None,
    *,
    deep: bool = False,
    on_event: Listener | None = None,
    cancel: CancelToken | None = None,
) -> MirrorReport:
    """Compare what the mirror at ``url`` has with the lock: sizes and metadata, or with ``deep`` every byte. What
    is wrong is in the report. Raises as `push`."""
    from mdl.plugins.mirror import checking

    models = client.locked_models(targets)
    with client.context(models, on_event=on_event, cancel=cancel) as context, _opened(client, url, context) as mirror:
        return checking.check(models, client.catalogs.lock, mirror, deep=deep)


def versions(
    client: Client, url: str, names: Texts | None = None, *, cancel: CancelToken | None = None
) -> list[MirrorVersion]:
    """Every version of a model that the mirror at ``url`` has, of all models or of these. Raises `NotFound` if
    there is no such bucket, `AuthError`, `NetworkError`, `ProtocolError`, `Cancelled`."""
    from mdl.plugins.mirror import operation

    with client.context([], cancel=cancel) as context, _opened(client, url, context) as mirror:
        return operation.versions(mirror, client.catalogs.lock, None if names is None else texts(names))


def clean(
    client: Client,
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
    from mdl.plugins.mirror import cleaning

    seconds = parse_duration(as_text(older_than), "--older-than", least=0)
    lock = client.catalogs.lock
    asked = None if names is None else texts(names)
    with client.context([], cancel=cancel) as context, _opened(client, url, context) as mirror:
        mirror.bucket.require_keys()
        return cleaning.clean(mirror, lock, asked, older_than=seconds, remove=remove, now=time.time())


@contextlib.contextmanager
def _opened(client: Client, url: str, context: Context) -> Iterator[Mirror]:
    """The mirror at ``url``, to be asked. Raises `UsageError`, `LockError` offline."""
    from mdl.catalog.mirror_layout import MirrorPlace
    from mdl.plugins.mirror.operation import Mirror
    from mdl.plugins.mirror.upload import Reporter
    from mdl.sources.object_store import Bucket
    from mdl.sources.s3_client import Access

    place = MirrorPlace.parse(url)
    if context.network is None:
        raise LockError("offline: no mirror can be asked", item=url, hint=online_hint(client.config.offline_by))
    access = Access.of(place.bucket, client.config.environ, client.network.remotes)
    host = Bucket(place.bucket, access, client.network.source_context(context.network)).host
    with client.network.open(more=[host], cancel=context.network.cancel) as network:
        reporter = Reporter(context.on_event)
        bucket = Bucket(place.bucket, access, client.network.source_context(network), reporter.on_retry)
        yield Mirror(place, bucket, network.connections, reporter)
