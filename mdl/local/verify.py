"""verify: read what is on disk again and compare it with what it should be; fetch what is wrong."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from mdl.catalog.model import Model
from mdl.context import Context, adopt_kept, model_locks, wait_for_others
from mdl.disk.pool import in_parallel
from mdl.downloader.plan import Plan, Wanted, decide_on
from mdl.downloader.store import Store
from mdl.errors import (
    DigestMismatch,
    LockError,
    MdlError,
    NetworkError,
    NotFound,
    ProtocolError,
    StateError,
    UsageError,
    joint_error,
    online_hint,
)
from mdl.events import Failed, Noticed, Verifying
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.formatting import as_written, listed
from mdl.listener import Listener
from mdl.local.from_receipts import (
    as_vouched_for,
    commits_not_listed,
    fetched_files,
    meant_paths,
    model_of,
    was_imported,
)
from mdl.local.on_disk import as_cached, cached_files, closed_by, owned_by, repos_of
from mdl.local.status import Judgement, can_run_code, expected_file, judge
from mdl.notebook import error_note, html_table
from mdl.paths import RelPath
from mdl.reports import BaseReport
from mdl.values import small_value_class, value_class

if TYPE_CHECKING:
    from mdl.downloader.transfer import Result
    from mdl.net.client import HttpClient

Ask = Callable[[Model], Sequence[RemoteFile]]
"""Asks the source of a model for its files. Raises `MdlError`."""

_WRONG = ("corrupt", "missing")
"""The verdicts on files that a repair fetches; with force also ``changed``."""
_WRONG_IF_STRICT = (*_WRONG, "unverified", "changed")
"""The verdicts that fail a verification with ``--strict``."""
READERS = min(4, os.cpu_count() or 1)
"""The number of files that are read at once."""
_BATCH_FILES = 32
_BATCH_BYTES = 2**20
"""A thread reads so many small files in a row, or so many bytes: it takes longer to hand it one than to read that."""
_NAMED = 5
"""The number of files that one error names."""
_WORDS: dict[Judgement, str] = {"present": "ok", "partial": "missing"}
"""The names of judgements that have another name after the bytes were read."""


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


_REMEDIES = {
    "get": ("get{}", "mdl {} downloads it"),
    "repair": ("verify{} --repair", "mdl {} fetches what is wrong"),
    "replace": ("verify --repair --force{}", "keep a copy of what was changed; 'mdl {}' replaces it"),
    "lock": ("lock{}", "mdl {} pins the bytes that are here"),
}
"""The usual command of each kind of remedy, with a place for the models, and what it does."""
_WITHOUT_REMEDY = "no published digest of them is known here; without --strict they do not count as wrong"


@value_class
class Remedy:
    """The remedy for files that are not right. ``kind``: ``get`` them, ``repair`` them, ``replace`` what was changed,
    or ``lock`` what has no published digest; of these ``models``."""

    kind: Literal["get", "repair", "replace", "lock"]
    models: tuple[str, ...] = ()

    def hint(self, command: str = "") -> str:
        """Return it in words. ``command`` is what to type, without ``mdl``, if not the usual command."""
        names = " NAME" if self.kind == "replace" else ""  # if there are too many to name them
        if len(self.models) <= _NAMED:
            names = f" {shlex.join(self.models)}"
        usual_command, words = _REMEDIES[self.kind]
        return words.format(command or usual_command.format(names))


@value_class
class VerifyReport(BaseReport):
    """The result of `verify`, by model. ``failures`` say what could not be read or repaired; ``wrong`` stands for what
    else is corrupt or missing, and ``remedy`` is what to do about that. ``bytes_fetched`` is None if no repair was
    begun. ``bytes_read`` are of the other files; it took ``seconds``. ``labels`` are the names of models as people
    write them."""

    models: dict[str, tuple[VerifiedFile, ...]] = field(default_factory=dict)
    failures: tuple[MdlError, ...] = ()
    wrong: MdlError | None = None
    remedy: Remedy | None = None
    bytes_fetched: int | None = None
    bytes_read: int = 0
    seconds: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def errors(self) -> tuple[MdlError, ...]:
        """All errors."""
        return self.failures if self.wrong is None else (*self.failures, self.wrong)

    @property
    def files(self) -> Iterator[tuple[str, VerifiedFile]]:
        """Every file with the name of its model."""
        for name, files in self.models.items():
            for file in files:
                yield name, file

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures; None if all is well."""
        return joint_error(self.errors)

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each file, and the error if there is one."""
        rows = [(file.status, as_written(f"{name}/{file.path}", self.labels)) for name, file in self.files]
        return html_table(("Status", "File"), rows, error_note(self))

    @property
    def changed(self) -> list[tuple[str, VerifiedFile]]:
        """Files that were changed after mdl wrote them, with the names of their models."""
        return [(name, file) for name, file in self.files if file.status == "changed"]

    def note_on_changed(self, command: str = "") -> str:
        """Say which files were changed after mdl wrote them, and what replaces them; '' if none were. ``command``
        is as in `Remedy.hint`."""
        changed = self.changed
        if not changed:
            return ""
        paths = listed([f"{name}/{file.path}" for name, file in changed], most=_NAMED)
        what = f"{paths} were changed after mdl wrote them"
        if len(changed) == 1:
            what = f"{paths} was changed after mdl wrote it"
        if self.bytes_fetched is not None:
            what += ", and not repaired"
        remedy = Remedy("replace", tuple(dict.fromkeys(name for name, _ in changed)))
        return f"{what}: {remedy.hint(command)}"


@small_value_class
class Checked:
    """A file with its verdict. ``remote`` is what it was compared with, as `expected_file` has it."""

    model: str
    remote: RemoteFile
    local: LocalFile
    verdict: VerifiedFile

    @property
    def status(self) -> str:
        return self.verdict.status

    @property
    def is_wrong(self) -> bool:
        """Return whether a repair fetches it."""
        return self.status in _WRONG

    @property
    def needs_force(self) -> bool:
        """Return whether a repair fetches it only with ``force``: another program's file, or the user's, is in its
        place."""
        decision = decide_on(Wanted(self.model, self.remote, self.local))
        return self.is_wrong and decision.refused is not None and self.local.stamp is not None

    @property
    def is_here(self) -> bool:
        """Return whether it is here in some state, or was."""
        return self.status != "missing" or self.local.receipt is not None

    @property
    def item(self) -> str:
        """The name of the file in errors."""
        return f"{self.model}/{self.remote.path}"

    def is_to_repair(self, force: bool) -> bool:
        """Return whether a repair fetches it, which with ``force`` also replaces what was changed."""
        return self.is_wrong or (force and self.status == "changed")


@value_class
class VerifyRequest:
    """Which models are verified. ``force`` lets a repair replace files that were changed or are not mdl's; with
    ``strict`` such a changed file, and one without a published digest, count as corrupt."""

    models: tuple[Model, ...]
    force: bool = False
    strict: bool = False


def verify(
    context: Context,
    request: VerifyRequest,
    *,
    connect: Callable[[Sequence[str]], HttpClient | None] | None = None,
    ask: Ask | None = None,
    others: Sequence[Store] = (),
) -> VerifyReport:
    """Read every file of the models again and compare it with its digest.

    ``ask`` asks the source of a model for its files, if nothing on this disk vouches for those that another program put
    into the hub's cache; without it, or if it fails, these are unverified. ``others`` are stores that are not read, and
    have perhaps what is not in this one.

    ``connect`` asks for a repair: if anything is wrong it is given the URLs that are needed, and returns the client to
    fetch them with; None if that is not possible because mdl is offline. What fails for one file hinders no other.
    Raises `Busy`, `StorageError`, `Cancelled`.
    """
    began = time.monotonic()
    models = request.models
    errors: dict[str, MdlError] = {}
    if ask is not None:
        ask = _while_it_answers(ask, context.on_event)
    checked_files = check(models, context, errors, ask, others)
    bytes_fetched = None
    names = {checked.model for checked in checked_files if checked.is_to_repair(request.force)}
    if connect is not None and names:
        http = connect(_urls(checked_files))
        if http is None:
            hint = online_hint(context.offline_by)
            for model in models:
                if model.name in names:
                    why = "wrong or missing here; mdl is offline"
                    errors[model.name] = LockError(why, item=model.label, hint=hint)
        else:
            with http, model_locks(models, context):
                bytes_fetched = repair(checked_files, context, http, force=request.force, errors=errors).bytes_fetched
                again = check([model for model in models if model.name in names], context, errors, ask)
                _mark_complete(again, context.store)
            checked_files = [checked for checked in checked_files if checked.model not in names] + again

    verdicts: dict[str, list[VerifiedFile]] = {model.name: [] for model in models}
    bytes_read = 0
    unexplained: list[Checked] = []
    for checked in checked_files:
        verdicts[checked.model].append(checked.verdict)
        if not checked.is_wrong:
            unexplained.append(checked)
            if checked.local.fingerprint is not None:
                bytes_read += checked.local.fingerprint.size
        elif checked.model not in errors and checked.item not in errors:  # an error says why: one reason, not two
            unexplained.append(checked)
    lockable = {model.name for model in models if model.is_of_catalog}
    wrong, remedy = _failure(unexplained, lockable, strict=request.strict)
    return VerifyReport(
        {name: tuple(files) for name, files in verdicts.items()},
        tuple(errors.values()),
        wrong,
        remedy,
        bytes_fetched,
        bytes_read,
        seconds=time.monotonic() - began,
    )


def _mark_complete(checked_files: Sequence[Checked], store: Store) -> None:
    """Models of which everything is right after a repair are complete."""
    files: dict[str, list[RemoteFile]] = {}
    for checked in checked_files:
        files.setdefault(checked.model, []).append(checked.remote)
    for name in _models_of(checked_files, _WRONG):
        del files[name]
    for right in files.values():
        store.layout.mark_complete(right, is_news=False)


def _while_it_answers(ask: Ask, on_event: Listener) -> Ask:
    """The same question, whose answer is empty if it fails: the user is told why, and what does not answer is not asked
    again, since each time costs a quarter of a minute."""
    is_reached = True

    def ask_or_tell(model: Model) -> Sequence[RemoteFile]:
        nonlocal is_reached
        if not is_reached:
            return ()
        try:
            return ask(model)
        except MdlError as error:
            is_reached = not isinstance(error, NetworkError)
            item = f"{model.label}: " if is_reached else ""
            words = f"{item}files that only Hugging Face's cache vouches for are unverified: {error.message}"
            on_event(Noticed(message=words))
            return ()

    return ask_or_tell


# Reading.


def check(
    models: Sequence[Model],
    context: Context,
    errors: dict[str, MdlError],
    ask: Ask | None = None,
    others: Sequence[Store] = (),
) -> list[Checked]:
    """Hash every file of ``models``, several at once. A corrupt one is distrusted until it was read with the right
    bytes. Of a model that cannot be checked the error goes into ``errors``."""
    store = context.store
    expected: list[tuple[str, RemoteFile]] = []
    failed: dict[str, MdlError] = {}
    for model in models:
        try:
            for remote in store.apart(model.name, _expected(model, context, ask, others)):
                expected.append((model.name, remote))
        except MdlError as error:
            failed[model.name] = error.on(model.name)
    checked_files: list[Checked] = []
    with contextlib.closing(_read_all(expected, store)) as outcomes:
        for name, remote in expected:
            with contextlib.suppress(MdlError):  # the outcome has this error too
                if store.is_named(name, remote):
                    context.on_event(Verifying(name, remote.path.text, done=0, total=remote.size))
            checked = next(outcomes)
            if isinstance(checked, MdlError):
                failed[name] = checked.on(name)
                continue
            with contextlib.suppress(OSError):  # a disk that takes no note is no reason to stop
                if checked.status == "corrupt":
                    store.receipts.distrust(name, remote.path)
                elif checked.local.was_read_as_written and checked.local.receipt is not None:
                    store.receipts.trust(checked.local.receipt)
            checked_files.append(checked)
    errors |= failed
    return [checked for checked in checked_files if checked.model not in failed]


def _read_all(expected: Sequence[tuple[str, RemoteFile]], store: Store) -> Generator[Checked | MdlError, None, None]:
    """Check the files of models, several batches at once, and yield the outcome of each in order."""
    calls: list[partial[list[Checked | MdlError]]] = []
    batch: list[tuple[str, RemoteFile]] = []
    size = 0
    for name, remote in expected:
        batch.append((name, remote))
        size += _BATCH_BYTES if remote.size is None else remote.size
        if size >= _BATCH_BYTES or len(batch) == _BATCH_FILES:
            calls.append(partial(_check_batch, batch, store))
            batch = []
            size = 0
    calls.append(partial(_check_batch, batch, store))
    with contextlib.closing(in_parallel(calls, READERS, store.cancel.check)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, MdlError):
                raise outcome
            yield from outcome


def _check_batch(batch: Sequence[tuple[str, RemoteFile]], store: Store) -> list[Checked | MdlError]:
    outcomes: list[Checked | MdlError] = []
    for name, remote in batch:
        try:
            outcomes.append(check_file(name, remote, store))
        except MdlError as error:
            outcomes.append(error)
    return outcomes


def check_file(model: str, remote: RemoteFile, store: Store) -> Checked:
    """Read a file and judge it. Raises `StorageError`, `StateError`, `Cancelled`."""
    receipt = store.receipts.get(model, remote.path, remote)
    asked = expected_file(remote, receipt)
    local = store.check(model, asked, deep=True, found=store.quick_check(model, asked, receipt))
    judgement = judge(local, asked)
    actual = local.why or None
    if local.fingerprint is not None:
        actual = str(local.fingerprint.digest)
    if judgement in ("present", "unverified"):
        pointer = store.pointer_state(model, asked)
        if pointer != "right":
            judgement = "corrupt" if pointer == "other" else "missing"
            actual = None
    elif judgement in ("partial", "missing"):
        actual = None
    name = remote.path.text
    verdict = VerifiedFile(
        name,
        status=_WORDS.get(judgement, judgement),
        expected=str(asked.digest) if asked.digest else None,
        actual=actual,
        runs_code=can_run_code(store.final_path(model, asked), name),
    )
    return Checked(model, asked, local, verdict)


def _expected(model: Model, context: Context, ask: Ask | None, others: Sequence[Store]) -> Sequence[RemoteFile]:
    """The files of the model as they should be. In the hub's cache, what nobody but that cache vouches for is compared
    with the lock, with the kept listing, or with the hub's (ADR 167). Raises `NotFound` if nothing of the model is
    known here, `StorageError`."""
    files = _meant_files(model, context, others)
    if not context.store.layout.is_by_digest or _are_vouched_for(files):
        return files
    files = _as_listed(files, context.resolver.known(model) or ())
    if not model.has_source:
        model = model_of(model.name, context.store.receipts.in_order(model.name))
    listed = as_cached(model, context.store)
    files = _as_listed(files, context.resolver.known(listed) or ())
    if ask is not None and listed.sources and not _are_vouched_for(files):
        files = _as_listed(files, ask(listed))
    return files


def _are_vouched_for(files: Sequence[RemoteFile]) -> bool:
    return all(file.is_vouched_for for file in files)


def _as_listed(files: Sequence[RemoteFile], listing: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The files; those that nobody vouches for as a listing has them."""
    listed = {(file.commit, file.path): file for file in listing}
    described: list[RemoteFile] = []
    for file in files:
        if not file.is_vouched_for:
            file = listed.get((file.commit, file.path), file)
        described.append(file)
    return described


def _meant_files(model: Model, context: Context, others: Sequence[Store]) -> Sequence[RemoteFile]:
    """The files of the model: those that have a receipt, those that catalog or lock name, and those that a download was
    to bring; without a receipt, all that is known of it, or that another program brought to the hub's cache.

    Raises `NotFound` if nothing of the model is known here, `StorageError`.
    """
    store = context.store
    receipts = {receipt.path.text: receipt for receipt in store.receipts.of_model(model.name)}
    meant = meant_paths(model, list(receipts), receipts)
    if store.layout.is_by_digest and not meant:
        cached = cached_files(store, model, context.endpoint)
        if cached:
            return cached
    known = context.resolver.known(model)
    if known is None and not meant:
        raise _nothing_here(model, store, others)
    if known is None:
        return _by_receipts(model, [receipts[path] for path in receipts if path in meant], context)
    meant = context.resolver.narrowed(meant)
    if not meant:
        return known
    return _as_they_came(model, known, [receipts[path] for path in receipts if path in meant], context)


def _as_they_came(
    model: Model, known: Sequence[RemoteFile], receipts: Sequence[Receipt], context: Context
) -> list[RemoteFile]:
    """The files of the ``receipts``, and those of the ``known`` ones that belong to them. Catalog and lock decide which
    digest a file has, and a listing does only if it is that of the download: looking at the hub makes no file wrong.
    (ADR 149)"""
    store = context.store
    named = {file.path: file.digest for file in context.resolver.pinned(model).files}
    by_path = {receipt.path: receipt for receipt in receipts}
    commits = {receipt.commit for receipt in receipts}
    wanted = store.receipts.wanted(model.name)
    decided: list[RemoteFile] = []
    listing: list[RemoteFile] = []
    for remote in known:
        receipt = by_path.get(remote.path)
        is_decided = remote.path in named and remote.digest == named[remote.path]
        if receipt is not None:
            is_decided = is_decided or receipt.vouched_by == "folder" or not _may_move(remote)
            is_decided = is_decided or remote.path.text in wanted  # by an update that was stopped half way
        if is_decided:
            decided.append(remote)
        elif receipt is None or remote.commit in commits or not receipt.is_vouched_for:
            listing.append(remote)  # else its place in the hub's cache is that of the commit at which it came
    commits |= {remote.commit for remote in decided if remote.path.text in wanted}
    paths = {remote.path for remote in decided}
    if model.is_of_catalog:
        paths |= _superseded(model, known, receipts, context)
    came = [receipt for receipt in receipts if receipt.path not in paths]
    meant = fetched_files(came, listing, wanted, is_exact=False)
    for remote in meant.files:
        is_optional = remote.path in meant.optional and remote.path not in named
        if is_optional and model.is_of_catalog:
            is_optional = _may_move(remote) and remote.commit not in commits
        if not is_optional or _is_named(store, model.name, remote):
            decided.append(remote)
    return sorted(decided, key=lambda remote: remote.path)


def _may_move(remote: RemoteFile) -> bool:
    """Return whether the repository of a file follows a branch, so that a later listing has another version of it."""
    return remote.hub is not None and remote.hub.branch != ""


def _superseded(
    model: Model, known: Sequence[RemoteFile], receipts: Sequence[Receipt], context: Context
) -> set[RelPath]:
    """The files that a model of the catalog had once, by their receipts, and has no more."""
    listed = {remote.path for remote in known}
    others = {receipt.path for receipt in receipts} - listed
    if not others:
        return set()
    others -= {remote.path for remote in context.resolver.known(model, in_all_formats=True) or ()}
    if not context.resolver.pinned(model).sources:
        return others
    commits = commits_not_listed(context.store.receipts.in_order(model.name), known)
    return {receipt.path for receipt in receipts if receipt.path in others and receipt.commit not in commits}


def _is_named(store: Store, model: str, remote: RemoteFile) -> bool:
    """Return whether anything is under the name of a file that need not be here."""
    try:
        return store.is_named(model, remote)
    except UsageError:
        return False  # this layout cannot store it


def _nothing_here(model: Model, store: Store, others: Sequence[Store]) -> MdlError:
    """The error for a model of which nothing is known in the store; its hint says what is in another one."""
    record = store.receipts.unreadable(model.name)
    if record is not None:
        hint = "'mdl get NAME' hashes the files that are here, and writes their receipts again"
        return StateError("the receipts of a model cannot be read", item=str(record), hint=hint)
    hint = store.command("get", model.target)
    owner = closed_by(store, model.name)
    if owner:
        return owned_by(owner, f"'{hint}' compares the files that are there").on(model.label)
    for other in others:
        for repo in repos_of(model, other):
            hint = f"Hugging Face's cache has it: mdl verify {repo.origin} --layout hf-cache"
    return NotFound("not on this disk", item=model.label, hint=hint)


def _by_receipts(model: Model, receipts: Sequence[Receipt], context: Context) -> list[RemoteFile]:
    """The files that have a receipt, and those that the last download wanted, as far as they were listed. That decides
    which version they have, unless the files are of several revisions, whose listings have the same paths."""
    files = {receipt.path: as_vouched_for(receipt) for receipt in receipts}
    wanted = context.store.receipts.wanted(model.name)
    if wanted:
        source = model_of(model.name, receipts)
        for remote in context.resolver.known(source) or ():
            if remote.path.text in wanted and (len(source.sources) == 1 or remote.path not in files):
                files[remote.path] = remote
    return list(files.values())


# Repair.


def repair(
    checked_files: Sequence[Checked], context: Context, http: HttpClient, *, force: bool, errors: dict[str, MdlError]
) -> Result:
    """Fetch what is wrong; of a damaged file only the blocks that are wrong, if its receipt has prefix digests. A file
    that was changed after mdl wrote it is replaced only with ``force``. What fails is put into ``errors``. Raises
    `Busy`, `Cancelled`."""
    from mdl.downloader.transfer import Transfer

    wanted: list[Wanted] = []
    for checked in checked_files:
        if checked.is_to_repair(force):
            wanted.append(Wanted(checked.model, checked.remote, checked.local, _why_not_fetched(checked)))
    plan = Plan.of(wanted, force=force)
    for item in plan.refuse:
        if item.refused is not None:
            path = item.remote.path.text
            name = f"{item.wanted.model}/{path}"
            error = item.refused.but(item=name)
            context.on_event(Failed(item.wanted.model, path, error.code, error.message, error.advice, name))
            errors[name] = error
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


def _urls(checked_files: Sequence[Checked]) -> list[str]:
    """Return the URLs that a repair may ask."""
    urls: list[str] = []
    for checked in checked_files:
        if not was_imported(checked.remote):
            urls += [checked.remote.url, *checked.remote.places]
    return urls


def _why_not_fetched(checked: Checked) -> MdlError | None:
    """The error of a file that cannot be fetched alone, for it was imported, or is one of those in the zip of a job."""
    if was_imported(checked.remote):
        reason = "it was imported: nothing says where it can be fetched"
        return NotFound(reason, item=checked.item, hint="import it again: mdl import DIR")
    url = urlsplit(checked.remote.url)
    if url.scheme != "job" or unquote(url.path).endswith(f"/{checked.remote.path}"):
        return None
    job = unquote(url.path.strip("/").partition("/")[0])
    hint = f"run its 'mdl fetch {url.netloc} {job}' again, with --force"
    return ProtocolError("came in a zip, and cannot be fetched alone", item=checked.item, hint=hint)


def _failure(
    checked_files: Sequence[Checked], lockable: Set[str], *, strict: bool
) -> tuple[MdlError | None, Remedy | None]:
    """The one error for what is wrong, and what to do about it, if anything helps: `DigestMismatch` if anything is
    corrupt (or, with ``strict``, unverified or changed), else `NotFound` if anything is missing; None if all is well.
    ``lockable`` are the names of the models that a lock can hold."""
    counts_as_wrong = _WRONG_IF_STRICT if strict else _WRONG
    bad = [checked for checked in checked_files if checked.status in counts_as_wrong]
    if not bad:
        return None, None
    names = listed([f"{checked.item} ({checked.status})" for checked in bad], most=_NAMED)
    remedy = _remedy(checked_files, bad, lockable)
    is_only_missing = {checked.status for checked in bad} == {"missing"}
    kind = NotFound if is_only_missing else DigestMismatch
    return kind(names, hint=remedy.hint() if remedy else _WITHOUT_REMEDY), remedy


def _remedy(checked_files: Sequence[Checked], bad: Sequence[Checked], lockable: Set[str]) -> Remedy | None:
    """Choose the remedy for the ``bad`` ones: the strongest of those that one of them needs. Nothing helps if nobody
    published a digest and no catalog has the model, for a lock holds models of catalogs."""
    wrong = _models_of(bad, _WRONG)
    if any(checked.needs_force for checked in bad):
        return Remedy("replace", wrong)
    if wrong:
        is_any_here = any(checked.is_here for checked in checked_files if checked.model in wrong)
        if is_any_here or len(wrong) > _NAMED:
            return Remedy("repair", wrong)
        return Remedy("get", wrong)
    changed = _models_of(bad, ("changed",))
    if changed:
        return Remedy("replace", changed)
    unverified = _models_of(bad, ("unverified",))
    return Remedy("lock", unverified) if lockable >= set(unverified) else None


def _models_of(checked_files: Sequence[Checked], statuses: Sequence[str]) -> tuple[str, ...]:
    """The models that have a file of one of these statuses, in order."""
    return tuple(dict.fromkeys(checked.model for checked in checked_files if checked.status in statuses))
