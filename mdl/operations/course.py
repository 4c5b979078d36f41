"""Course: a plan being carried out: fetched, each digest once, what is here told, what wants the same bytes linked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.engine.adoption import wait_for_owners
from mdl.engine.local_copies import LocalCopies, reuse
from mdl.engine.plan import Item, Plan
from mdl.engine.receipts import file_key, new_receipt
from mdl.engine.store import Store
from mdl.errors import Cancelled, MdlError, NetworkError
from mdl.events import Finished, Listener, Noticed, Report
from mdl.operations.reports import kept_verified, report_of

if TYPE_CHECKING:
    from mdl.engine.hub_client import HubClient
    from mdl.engine.transfer import Outcome, Result
    from mdl.http.client import Http


@dataclass
class Course:
    """A plan being carried out, and how far it is."""

    models: Sequence[Model]
    plan: Plan
    same: list[Item]
    broken: dict[str, MdlError]
    store: Store
    tell: Listener
    began: float
    outcomes: list[Outcome] = field(default_factory=list)
    fetched: int = 0
    discarded: int = 0

    def run(self, http: Http, carrier: HubClient | None, elsewhere: LocalCopies | None) -> Report:
        """Fetch what is left to fetch, each digest once; who wants the same bytes gets them from the first."""
        from mdl.engine.transfer import Result, transfer

        adopt_kept(self.plan, self.store)
        for item in self.plan.keep:
            size = item.local.stamp.size if item.local.stamp else 0
            self.tell(Finished(item.wanted.model, item.remote.path.text, size, "kept", kept_verified(item)))
        whole, waiting = self.plan.bytes_whole, list(self.plan.fetch)
        try:
            while waiting:
                fetching, waiting = tuple(waiting), []
                self._add(transfer(fetching, self.store, http, self.tell, bytes_kept=whole, hub_client=carrier))
                if self.same and elsewhere:
                    linked, waiting = reuse(self.same, replace(elsewhere), self.tell)
                    self.same, self.plan = [], replace(self.plan, linked=(*self.plan.linked, *linked))
        except Cancelled as error:
            if isinstance(error.so_far, Result):
                self._add(error.so_far)
            lost = [replace(item, refused=NetworkError("not reached")) for item in (*self.same, *waiting)]
            self.plan = replace(self.plan, refuse=(*self.plan.refuse, *lost))
            error.so_far = self.report()
            raise
        return self.report()

    def _add(self, result: Result) -> None:
        self.outcomes += result.outcomes
        self.fetched += result.bytes_fetched
        self.discarded += result.bytes_discarded

    def report(self) -> Report:
        report = report_of(self.models, self.store, self.plan, self.outcomes, self.broken)
        return replace(
            report,
            bytes_fetched=self.fetched,
            bytes_kept=self.plan.bytes_kept,
            bytes_discarded=self.discarded,
            seconds=time.monotonic() - self.began,
        )


def wait_for_others(items: Sequence[Item], store: Store, seconds: float, tell: Listener) -> None:
    """Wait up to ``seconds`` for processes, also of other machines and containers, that have these files in hand."""
    keys = [file_key(item.wanted.model, item.remote.path) for item in items]
    notice: Callable[[str], None] = lambda holder: tell(Noticed(message=f"waiting for {holder}"))  # noqa: E731
    wait_for_owners(store.partials, keys, seconds, notice, store.cancel)


def adopt_kept(plan: Plan, store: Store) -> None:
    """Right bytes without a receipt get one; those that another catalog brought belong to both."""
    for item in plan.keep:
        if item.adopt and item.local.fingerprint and item.local.stamp:
            verified = item.remote.digest.algorithm if item.remote.digest else kept_verified(item)
            with contextlib.suppress(OSError):
                strange = item.local.receipt is None or item.local.receipt.adopted
                print_, stamp = item.local.fingerprint, item.local.stamp
                model, remote = item.wanted.model, item.remote
                store.receipts.put(new_receipt(model, remote, print_, verified, stamp, adopted=strange))
        elif item.local.receipt and item.local.receipt.catalog != store.catalog:
            with contextlib.suppress(OSError):
                store.receipts.mark_shared(item.wanted.model, item.remote.path, store.catalog)
        with contextlib.suppress(OSError):
            store.expose(item.wanted.model, item.remote)
