"""verify: read what is on disk again and compare it with what it should be; fetch what is wrong."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mdl.catalog.model import Model
from mdl.context import Context, adopt_kept, model_locks, wait_for_others
from mdl.disk.pool import in_parallel
from mdl.downloader.plan import Plan, Wanted
from mdl.downloader.store import Store
from mdl.errors import (
    DigestMismatch,
    LockError,
    MdlError,
    NotFound,
    ProtocolError,
    joint_error,
    online_hint,
)
from mdl.events import Verifying
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.formatting import listed
from mdl.local.inventory import cached_files, model_of
from mdl.local.status import can_run_code
from mdl.reports import BaseReport
from mdl.values import small_value_class, value_class

if TYPE_CHECKING:
    from mdl.downloader.transfer import Result
    from mdl.net.client import HttpClient

_WRONG = ("corrupt", "missing")
"""What a repair fetches; with force also what was ``changed``."""
_LARGE = 2**19
_READERS = min(4, os.cpu_count() or 1)
"""How many files of at least so many bytes are read at once."""
_NAMED = 5
"""How many files one error names."""


@small_value_class
class VerifiedFile:
    """The verdict on one file: ``ok``, ``corrupt``, ``missing``, ``changed`` if it was edited after mdl wrote it, or
    ``unverified`` if it is as it came, but no published digest is known. ``expected`` and ``actual`` are digests as
    ``algorithm:hex``; ``actual`` says what stands there instead if that is not a file. ``runs_code`` is as `FileReport`
    has it."""

    path: str
    status: str
    expected: str | None
    actual: str | None
    runs_code: bool | None = None


@value_class
class VerifyReport(BaseReport):
    """What `verify` found, by model. ``failures`` say what could not be read or repaired; ``wrong`` stands for what
    else is corrupt or missing. ``bytes_fetched`` is None if no repair was begun. ``bytes_read`` are of the other files;
    it took ``seconds``."""

    models: dict[str, tuple[VerifiedFile, ...]] = field(default_factory=dict)
    failures: tuple[MdlError, ...] = ()
    wrong: MdlError | None = None
    bytes_fetched: int | None = None
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def errors(self) -> tuple[MdlError, ...]:
        """All errors."""
        return (*self.failures, *([self.wrong] if self.wrong else []))

    @property
    def files(self) -> Iterator[tuple[str, VerifiedFile]]:
        """Every file with the name of its model."""
        return ((name, file) for name, files in self.models.items() for file in files)

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all; None if all is well."""
        return joint_error(self.errors)

    @property
    def note_on_changed(self) -> str:
        """Which files were changed after mdl wrote them, and what replaces them, in words; '' if none were."""
        changed = [(name, file) for name, file in self.files if file.status == "changed"]
        if not changed:
            return ""
        paths = listed([f"{name}/{file.path}" for name, file in changed], most=_NAMED)
        was = "was" if len(changed) == 1 else "were"
        left = "" if self.bytes_fetched is None else ", and not repaired"
        return f"{paths} {was} changed after mdl wrote it{left}: {_way_back(name for name, _ in changed)}"


@small_value_class
class Checked:
    """One file with its verdict."""

    model: str
    remote: RemoteFile
    local: LocalFile
    verdict: VerifiedFile

    @property
    def status(self) -> str:
        return self.verdict.status


def verify(
    models: Sequence[Model],
    context: Context,
    *,
    connect: Callable[[Sequence[str]], HttpClient | None] | None = None,
    ask: Callable[[Model], Sequence[RemoteFile]] | None = None,
    force: bool = False,
    strict: bool = False,
) -> VerifyReport:
    """Read every file of ``models`` again and compare it with its digest.

    ``ask`` asks the source of a model for its files, of which another program has brought some to the hub's cache
    without their digests; without it, or if it fails, these are unverified.

    ``connect`` asks for a repair: if anything is wrong it is given the URLs that are needed, and returns the client to
    fetch them with; None if that is not possible because mdl is offline. ``force`` lets a repair replace files that
    were changed or are not mdl's; with ``strict`` such a changed file, and one without a published digest, count as
    corrupt. What fails for one file hinders no other. Raises `Busy`, `StorageError`, `Cancelled`.
    """
    began = time.monotonic()
    errors: dict[str, MdlError] = {}
    rows = check(models, context, errors, ask)
    wrong = sorted({row.model for row in rows if _is_to_repair(row, force)})
    fetched = None
    if connect and wrong:
        http = connect([url for row in rows for url in _urls(row.remote)])
        if http is None:
            hint = online_hint(context.offline_by)
            errors |= {name: LockError("wrong or missing here, and offline", item=name, hint=hint) for name in wrong}
        else:
            with http, model_locks(models, context):
                fetched = repair(rows, context, http, force=force, errors=errors).bytes_fetched
                again = check([model for model in models if model.name in wrong], context, errors, ask)
                rows = [row for row in rows if row.model not in wrong] + again
                for name in wrong:
                    found = [row for row in again if row.model == name]
                    if found and all(row.status not in _WRONG for row in found):
                        context.store.layout.mark_complete([row.remote for row in found], is_news=False)
    right = (row.local.fingerprint for row in rows if row.status not in _WRONG)
    verdicts = {model.name: tuple(row.verdict for row in rows if row.model == model.name) for model in models}
    return VerifyReport(
        verdicts,
        tuple(errors.values()),
        _failure([row for row in rows if not _is_told(row, errors)], strict=strict),
        fetched,
        bytes_read=sum(one.size for one in right if one),
        seconds=time.monotonic() - began,
    )


def check(
    models: Sequence[Model],
    context: Context,
    errors: dict[str, MdlError],
    ask: Callable[[Model], Sequence[RemoteFile]] | None = None,
) -> list[Checked]:
    """Hash every file of ``models``, several large ones at once. A corrupt one is distrusted from now on. Of a model
    that cannot be checked the error goes into ``errors``."""
    store = context.store
    expected = list[tuple[str, RemoteFile]]()
    lost = dict[str, MdlError]()
    for model in models:
        try:
            files = _cached(model, context, ask) or _expected(model, context)
            expected += [(model.name, remote) for remote in store.apart(model.name, files)]
        except MdlError as error:
            lost[model.name] = error
    calls = [partial(_check_file, name, remote, store) for name, remote in expected if _is_large(remote)]
    rows = list[Checked]()
    row: Checked | MdlError
    with contextlib.closing(in_parallel(calls, _READERS, store.cancel.check)) as of_large:
        for name, remote in expected:
            try:
                looked = _look(name, remote, store)
                if looked[1].kind == "file":
                    context.on_event(Verifying(name, remote.path.text, done=0, total=remote.size))
                if not _is_large(remote):
                    row = _check_file(name, remote, store, looked)
            except MdlError as error:
                row = error
            if _is_large(remote):
                row = next(of_large)
            if isinstance(row, MdlError):
                lost[name] = row
                continue
            if row.status == "corrupt":
                with contextlib.suppress(OSError):  # a disk that takes no note is no reason to stop
                    store.receipts.distrust(name, remote.path)
            rows.append(row)
    errors |= {name: error.on(name) for name, error in lost.items()}
    return [row for row in rows if row.model not in lost]


def _cached(
    model: Model, context: Context, ask: Callable[[Model], Sequence[RemoteFile]] | None
) -> Sequence[RemoteFile]:
    """What another program has brought of a model to the hub's cache; nothing if mdl has brought any of it. The digests
    are the names of the blobs, or those of a listing."""
    if not context.store.layout.is_by_digest or context.store.receipts.of_model(model.name):
        return ()
    found = cached_files(context.store, model, context.endpoint)
    without = [remote for remote in found if remote.digest is None]
    if not without:
        return found
    listed = {(one.commit, one.path): one for one in context.resolver.known(model) or ()}
    if ask and not all((one.commit, one.path) in listed for one in without):
        with contextlib.suppress(MdlError):
            listed |= {(one.commit, one.path): one for one in ask(model)}
    return [one if one.digest else listed.get((one.commit, one.path), one) for one in found]


def _expected(model: Model, context: Context) -> Sequence[RemoteFile]:
    """The files of the model: those of the catalog and the kept listings, and what is here of the same weights in other
    formats; else those that have a receipt.

    Raises `NotFound` if nothing of the model is known here, `StorageError`.
    """
    store = context.store
    expected = context.resolver.known(model)
    if expected is not None:
        paths = {remote.path for remote in expected}
        in_all_formats = context.resolver.known(model, in_all_formats=True) or ()
        others = [remote for remote in in_all_formats if remote.path not in paths]
        here = {receipt.path: receipt for receipt in store.receipts.of_model(model.name)} if others else {}
        expected += [_from_receipt(here[remote.path]) for remote in others if remote.path in here]
    else:
        receipts = store.receipts.of_model(model.name)
        if not receipts:
            raise NotFound("not on this disk", item=model.name, hint=f"mdl get {model.target}")
        expected = [_from_receipt(receipt) for receipt in receipts]
        if wanted := store.receipts.wanted(model.name) - {remote.path.text for remote in expected}:
            listed = context.resolver.known(model_of(model.name, receipts)) or ()
            expected += [remote for remote in listed if remote.path.text in wanted]
    return expected


def _from_receipt(receipt: Receipt) -> RemoteFile:
    digest = receipt.digest if receipt.is_vouched_for else None
    return replace(receipt.remote, digest=digest, validator=receipt.validator, commit=receipt.commit, probed=True)


def _is_large(remote: RemoteFile) -> bool:
    """Whether another thread can begin to read the file in less time than it takes to read it."""
    return (remote.size or 0) >= _LARGE


def _look(model: str, remote: RemoteFile, store: Store) -> tuple[RemoteFile, LocalFile]:
    """The file with the digest that it should have, as far as that is known, and what is there."""
    receipt = store.receipts.get(model, remote.path, remote)
    asked = replace(remote, digest=receipt.digest) if receipt and not remote.digest else remote
    return asked, store.quick_check(model, asked, receipt)


def _check_file(
    model: str, remote: RemoteFile, store: Store, looked: tuple[RemoteFile, LocalFile] | None = None
) -> Checked:
    """``looked`` is what `_look` just returned, if the caller has asked."""
    asked, local = looked or _look(model, remote, store)
    local = store.check(model, asked, deep=True, found=local)
    wanted = asked.digest
    found = local.fingerprint
    expected = str(wanted) if wanted else None
    status = "ok" if remote.is_vouched_for else "unverified"
    actual = None
    if found:
        actual = expected if found.digest == wanted else str(found.digest)
    if local.kind == "absent":
        status = "missing"
    elif found is None:
        status = "corrupt"
        actual = local.why or None
    elif remote.size not in (None, found.size) or wanted not in (None, found.digest):
        status = "changed" if local.is_edited else "corrupt"
    elif (pointer := store.pointer_state(model, asked)) != "right":
        status = "corrupt" if pointer == "other" else "missing"
        actual = None
    name = remote.path.text
    verdict = VerifiedFile(name, status, expected, actual, can_run_code(store.final_path(model, asked), name))
    return Checked(model, remote, local, verdict)


def repair(
    rows: Sequence[Checked], context: Context, http: HttpClient, *, force: bool, errors: dict[str, MdlError]
) -> Result:
    """Fetch what is wrong; of a damaged file only the blocks that are wrong, if its receipt has prefix digests. A file
    that was changed after mdl wrote it is replaced only with ``force``. What fails is put into ``errors``. Raises
    `Busy`, `Cancelled`."""
    from mdl.downloader.transfer import Transfer

    wanted = []
    for row in (one for one in rows if _is_to_repair(one, force)):
        item = f"{row.model}/{row.remote.path}"
        if _was_imported(row.remote):
            why = "it was imported: nothing says where it can be fetched"
            hint = "import it again: mdl import DIR"
            errors[item] = NotFound(why, item=item, hint=hint)
        elif _came_in_zip(row.remote):
            errors[item] = _not_alone(row, item)
        else:
            receipt = context.store.receipts.get(row.model, row.remote.path)
            digest = row.remote.digest
            size = row.remote.size
            if receipt and digest is None:
                digest = receipt.digest
            if receipt and size is None:
                size = receipt.stamp.size
            wanted.append(Wanted(row.model, replace(row.remote, digest=digest, size=size), row.local))
    plan = Plan.of(wanted, force=force)
    for one in plan.refuse:
        if (refused := one.refused) is not None:
            item = f"{one.wanted.model}/{one.remote.path}"
            errors[item] = refused.but(item=item)
    adopt_kept(plan, context.store)
    wait_for_others(plan.fetch, context)
    result = Transfer(
        plan.fetch, context.store, http, context.on_event, context.resolver.met, repair=True, tuning=context.tuning
    ).run()
    for file in result.files:
        if file.error:
            name = f"{file.item.wanted.model}/{file.remote.path}"
            errors[name] = file.error.on(name)
    return result


def _is_to_repair(row: Checked, force: bool) -> bool:
    return row.status in _WRONG or (force and row.status == "changed")


def _urls(remote: RemoteFile) -> Sequence[str]:
    """What a repair asks for a file."""
    return () if _was_imported(remote) else (remote.url, *remote.places)


def _was_imported(remote: RemoteFile) -> bool:
    """Whether the file came from a folder of another program, and no source is known for it."""
    return remote.url.startswith("file:")


def _came_in_zip(remote: RemoteFile) -> bool:
    """Whether the file is one of those in the zip of a job."""
    url = urlsplit(remote.url)
    return url.scheme == "job" and not unquote(url.path).endswith(f"/{remote.path}")


def _not_alone(row: Checked, item: str) -> MdlError:
    job = urlsplit(row.remote.url)
    name = unquote(job.path.strip("/").partition("/")[0])
    hint = f"run its 'mdl fetch {job.netloc} {name}' again, with --force"
    return ProtocolError("came in a zip, and cannot be fetched alone", item=item, hint=hint)


def _is_told(row: Checked, errors: Container[str]) -> bool:
    """Whether one of the ``errors`` says why the file is still wrong: that is one reason, not two."""
    return row.status in _WRONG and (row.model in errors or f"{row.model}/{row.remote.path}" in errors)


def _failure(rows: Sequence[Checked], *, strict: bool) -> MdlError | None:
    """The one error for what is wrong: `DigestMismatch` if anything is corrupt (or, with ``strict``, unverified or
    changed), else `NotFound` if anything is missing; None if all is well."""
    corrupt = {"corrupt", "unverified", "changed"} if strict else {"corrupt"}
    bad = [row for row in rows if row.status in corrupt or row.status == "missing"]
    if not bad:
        return None
    kind: type[MdlError] = NotFound
    if any(row.status in corrupt for row in bad):
        kind = DigestMismatch
    names = listed([f"{row.model}/{row.remote.path} ({row.status})" for row in bad], most=_NAMED)
    return kind(names, hint=_remedy(rows, bad))


def _remedy(rows: Sequence[Checked], bad: Sequence[Checked]) -> str:
    """What to do about the ``bad`` ones."""
    wrong = list(dict.fromkeys(row.model for row in bad if row.status in _WRONG))
    if not wrong and any(row.status == "changed" for row in bad):
        return _way_back([row.model for row in bad if row.status == "changed"])
    if not wrong:
        return "mdl lock pins the bytes that are here"
    named = shlex.join(wrong) if len(wrong) <= _NAMED else ""
    if named and not any(row.local.receipt or row.status != "missing" for row in rows if row.model in wrong):
        return f"mdl get {named} downloads it"
    return f"{' '.join(filter(None, ('mdl verify', named, '--repair')))} fetches what is wrong"


def _way_back(models: Iterable[str]) -> str:
    """How files that were changed after mdl wrote them become again what mdl wrote."""
    names = list(dict.fromkeys(models))
    named = shlex.join(names) if len(names) <= _NAMED else "NAME"
    return f"keep a copy of what was changed; 'mdl verify --repair --force {named}' replaces it"
