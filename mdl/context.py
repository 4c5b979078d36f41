"""Context: what every operation on models works with, and the steps that several of them share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from threading import Thread
from typing import TYPE_CHECKING

from mdl.catalog.model import Model, RepoIds
from mdl.catalog.resolver import Resolver
from mdl.disk import look_anew
from mdl.disk.mutex import Mutex, file_lock
from mdl.disk.pool import start_threads
from mdl.disk.process import allow_descriptors
from mdl.disk.publish import OpenFolders
from mdl.downloader.copies import LocalCopies
from mdl.downloader.partial_folders import remove_stale, wait_for_owners
from mdl.downloader.plan import Item, Plan
from mdl.downloader.receipts import also_of, file_key, new_receipt
from mdl.downloader.store import Store
from mdl.errors import suppress_storage_trouble
from mdl.events import Event, Finished, Listener, Noticed, Progressed, silence
from mdl.files import Receipt, is_verified
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.downloader.connection_scaler import Tuning
    from mdl.downloader.hub_client import HubClient
    from mdl.net.network import Network


@value_class
class Context:
    """What one operation works with, made once for it by `mdl.Client`, or by a test.

    ``resolver`` says which files a model has, and ``store`` is the models folder. Without a ``network`` (offline)
    nothing is contacted; ``offline_by`` is then the flag, variable or setting that says so. Files that are among the
    ``local_copies`` are not fetched, and ``hub_client`` fetches those of the hub, if one is given. ``on_event`` is
    called with every event.
    """

    resolver: Resolver
    store: Store
    network: Network | None = None
    lock_wait: float = 600.0
    """Seconds to wait for another process that works on the same models."""
    hub_client: HubClient | None = None
    local_copies: LocalCopies | None = None
    on_event: Listener = silence
    max_size: int | None = None
    """A plan of more bytes is refused."""
    tuning: Tuning | None = None
    """Sizes, times and speeds of the transfer, if not the usual ones."""
    endpoint: str = ""
    """The URL of the hub."""
    offline_by: str = ""


_OF_A_MODEL = 3
_OF_THE_WORK = 64
"""How many descriptors there must be for each model, two of them for its lock, and for everything else."""


@contextlib.contextmanager
def model_locks(models: Sequence[Model], context: Context) -> Iterator[None]:
    """Hold every model's lock, always taken in one order so that two processes cannot wait for each other.

    If a lock cannot even be made (a read-only folder) the work goes on without it: whatever must be written will say
    so. What killed processes left of these models is removed. After a stop the locks stay until no thread writes any
    more, however soon the caller goes on. Raises `Busy` after ``context.lock_wait`` seconds.
    """
    store = context.store
    names = sorted({model.name for model in models})
    allow_descriptors(_OF_A_MODEL * len(names) + _OF_THE_WORK)
    held: list[Mutex] = []
    try:
        for name in names:
            with suppress_storage_trouble():
                waiting = _waiting(context.on_event, name)
                held.append(file_lock(store.locks, name, context.lock_wait, waiting, store.cancel))
        store.leases.update(mutex.lease for mutex in held if mutex.lease)
        for name in names:
            look_anew(store.receipts.place(name))
        remove_stale(store.own, names)
        yield
    finally:
        let_go = partial(_let_go, held, store)
        is_written_to = any(thread.is_alive() for thread in store.at_work)
        if not is_written_to or not start_threads("mdl-unlock", [partial(_call_after, store.at_work, let_go)]):
            let_go()


def _let_go(held: Sequence[Mutex], store: Store) -> None:
    """Release the mutexes of models, the last one that was taken first, and each also if another one cannot be."""
    store.leases.difference_update(mutex.lease for mutex in held if mutex.lease)
    with contextlib.ExitStack() as stack:
        for mutex in held:
            stack.callback(mutex.release)


def _call_after(threads: Sequence[Thread], let_go: Callable[[], None]) -> None:
    """Call ``let_go`` once the ``threads`` have ended."""
    for thread in threads:
        thread.join()
    let_go()


def wait_for_others(items: Sequence[Item], context: Context) -> None:
    """Wait up to ``context.lock_wait`` seconds for processes, also of other machines and containers, that are fetching
    these files. Raises `Busy`."""
    keys = [file_key(item.wanted.model, item.remote.path) for item in items]
    wait_for_owners(context.store.partials, keys, context.lock_wait, _waiting(context.on_event), context.store.cancel)


def _waiting(on_event: Listener, model: str = "") -> Callable[[str], None]:
    return lambda holder: on_event(Noticed(model, message=f"waiting for {holder}"))


def with_sources(on_event: Listener, models: Sequence[Model], page_hosts: Collection[str]) -> Listener:
    """A listener that passes every event on to ``on_event``, with the kind of its model and the id of its source."""
    by_name = {model.name: model for model in models}

    @cache
    def repos_of(name: str) -> RepoIds:
        return by_name[name].repos(page_hosts)

    def tell(event: Event) -> None:
        about = event.files[0] if isinstance(event, Progressed) and event.files else event
        if model := by_name.get(about.model):
            facts = vars(event) | {"kind": model.kind, "repo": repos_of(model.name).of(about.file)}
            event = type(event)(**facts)
        on_event(event)

    return tell


def adopt_kept(plan: Plan, store: Store) -> None:
    """Give a receipt to right bytes that have none. Those that another catalog brought belong to both from now on; see
    `also_of` for those that a newer commit has as well."""
    adopted: list[Receipt] = []
    for item in plan.keep:
        model = item.wanted.model
        remote = item.remote
        local = item.local
        if item.adopt and local.fingerprint and local.stamp:
            is_adopted = local.receipt is None or local.receipt.adopted
            adopted.append(
                new_receipt(model, remote, local.fingerprint, verified_by(item), local.stamp, adopted=is_adopted)
            )
        elif local.receipt:
            receipt = local.receipt
            if receipt.catalog not in (None, store.catalog):
                receipt = replace(receipt, catalog=None)
            receipt = also_of(receipt, remote, moves=not store.layout.is_by_digest)
            adopted += [receipt] if receipt != local.receipt else []
    with contextlib.suppress(OSError):
        store.receipts.put(*adopted)
    with contextlib.suppress(OSError), OpenFolders() as folders:
        for item in plan.keep:
            with contextlib.suppress(OSError):
                folders.sync_if_many()
                store.layout.expose(item.remote, folders)
        folders.sync()


def tell_kept(plan: Plan, on_event: Listener) -> None:
    """Tell of the files that are here already."""
    for item in plan.keep:
        on_event(Finished(item.wanted.model, item.remote.path.text, item.local.size, "kept", verified_by(item)))


def verified_by(item: Item) -> str:
    """What the bytes of a file that was here already were compared with; ``none`` if only the folder or bundle that
    brought them says that they are right."""
    receipt = item.local.receipt
    if item.remote.is_vouched_for:
        return item.remote.hash_algorithm
    if receipt is None or (receipt.vouched_by == "folder" and is_verified(receipt.verified)):
        return "none"
    return receipt.verified
