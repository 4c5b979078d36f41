"""Job files: what is asked for of jobs, and which of their files that means.

Where a run's layout tells which checkpoint is the latest or the best, or what its model is, the rules are those of
`mdl.runs`, over the paths that a remote lists. Of the files only small records are read.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from functools import cache, partial
from pathlib import Path
from typing import cast
from urllib.parse import urlencode

from mdl.archive.base import ArchiveLimits
from mdl.bounds import LARGEST_RECORD
from mdl.catalog.model import Model
from mdl.catalog.resolver import narrow
from mdl.context import Context
from mdl.errors import NotFound
from mdl.events import Noticed
from mdl.files import RefusedFile, RemoteFile
from mdl.formatting import counted, human_bytes, listed
from mdl.net.client import HttpClient
from mdl.paths import matches, matching, names_for_a_hint, shown
from mdl.results.base import JobOrigin, JobSource
from mdl.results.outputs import CHOICES, is_archive_name, may_be_archive
from mdl.runs import companions_of, run_of_listing
from mdl.runs.checkpoint import parse_count
from mdl.runs.completeness import RESUME_GLOBS
from mdl.runs.names import what_name_says
from mdl.runs.run import Run
from mdl.runs.tree import folders_above, is_in
from mdl.values import value_class
from mdl.weights.known_formats import is_weights, kind_of, stem_of

_ONLY_TO_RESUME = tuple(f"*/{glob}" for glob in RESUME_GLOBS)
"""Globs of what only a resumed training reads, in whichever folder."""
_MODEL_ARCHIVE = re.compile(r"model\.(zip|tar|tar\.gz|tgz)")
_NAMED = 3
_SOME = 1
"""Bytes of a file whose size is not known: it is not empty."""


@value_class
class Service:
    """Where results are put into service: ``folder`` of the releases, of which ``keep`` stay, once ``check`` ended with
    0."""

    folder: Path
    keep: int = 3
    check: str | Sequence[str] | None = None


@value_class
class FetchRequest:
    """Which jobs are fetched, and how. Each of ``models`` has one source, a `JobOrigin` of the same remote.

    ``wait`` seconds in all for jobs that still run; ``allow_running`` takes what is there of them. ``keep_archive``
    keeps an archive beside the folder of the job, and ``limits`` says how much one may hold. ``force`` replaces files
    that are not mdl's; ``service`` puts the results of one job into service.
    """

    models: tuple[Model, ...]
    wait: float = 0.0
    allow_running: bool = False
    keep_archive: bool = False
    force: bool = False
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    service: Service | None = None


@value_class
class JobFiles:
    """What is wanted of a job: ``archives``, or what may be some, and ``others``. The patterns of ``model`` pick among
    the files; ``include`` and ``exclude`` pick among the members of its archives. ``refused`` are those whose names
    cannot be kept here. ``is_archived``: its remote sends all of it as one archive, whatever that holds. ``is_chosen``:
    the remote has more files that are not wanted."""

    model: Model
    archives: tuple[RemoteFile, ...] = ()
    others: tuple[RemoteFile, ...] = ()
    refused: tuple[RefusedFile, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    is_archived: bool = False
    is_chosen: bool = False

    @property
    def without_archives(self) -> Model | None:
        """The model of its other files alone, with those that are refused; None if there are none."""
        if not self.archives and not self.is_chosen:
            return self.model
        rest: list[RemoteFile | RefusedFile] = [*self.others, *self.refused]
        return picking(self.model, rest) if rest else None


def picking(model: Model, files: Sequence[RemoteFile | RefusedFile]) -> Model:
    """The same model, of these files alone."""
    return replace(model, include=tuple(glob.escape(str(file.path)) for file in files), exclude=())


def files_of_job(model: Model, context: Context) -> JobFiles:
    """Which files of a job are wanted, and which of them may be archives. Offline nobody is asked, and what is known
    was unpacked before. Raises as the remote does."""
    if context.network is None:
        return JobFiles(model)
    source = source_of(model, context)
    origin = origin_of(model)
    is_archived = source.remote(origin.remote).is_archived
    listed = source.resolve(origin)
    if is_archived:
        return JobFiles(model, tuple(listed), include=model.include, exclude=model.exclude, is_archived=True)
    refused = _refused(model, source)
    chosen = choose(model, listed, context) if listed else []
    is_chosen = len(chosen) < len(listed)
    archive_names = {file.path.text for file in chosen if may_be_archive(file.path.name)}
    if not archive_names:
        source.keep(origin, chosen)
        return JobFiles(model, (), tuple(chosen), refused, is_chosen=is_chosen)
    names = {file.path.text for file in chosen}
    include: tuple[str, ...] = ()
    wanted = picked(names, model.include, model.exclude)
    if model.include and not matching(names, model.include):
        include = model.include  # no file of the job itself is meant, so the patterns are for members of archives
        wanted = picked(_to_look_into(archive_names, names), (), model.exclude)
        if not wanted:
            narrow(chosen, include, (), model.name)  # raises `NotFound`, before anything is fetched
    archives = []
    others = []
    for file in chosen:
        name = file.path.text
        if name not in wanted:
            continue
        if name in archive_names:
            archives.append(_versioned(file))
        else:
            others.append(file)
    return JobFiles(model, tuple(archives), tuple(others), refused, include, model.exclude, is_chosen=is_chosen)


def _refused(model: Model, source: JobSource) -> tuple[RefusedFile, ...]:
    """Those of a job's files that are meant, and whose names cannot be kept here."""
    refused = source.refused(origin_of(model))
    names = picked((file.path for file in refused), model.include, model.exclude)
    return tuple(file for file in refused if file.path in names)


def _to_look_into(archives: set[str], names: set[str]) -> set[str]:
    """Those of what may be ``archives`` that are fetched for their members. Torch files are weights, and are not,
    unless the job has no other of the ``names``."""
    if len(names) == 1:
        return archives
    return {name for name in archives if is_archive_name(name) or kind_of(name) is None}


def picked(names: Iterable[str], include: Sequence[str], exclude: Sequence[str]) -> set[str]:
    """Return those of some names that the patterns of a request leave."""
    wanted = matching(names, include) if include else set(names)
    return wanted - matching(wanted, exclude)


def _versioned(archive: RemoteFile) -> RemoteFile:
    """The archive with a URL that is another one once it is known to have changed."""
    facts = json.dumps([archive.size, str(archive.digest), archive.validator])
    version = hashlib.sha256(facts.encode()).hexdigest()[:12]
    return replace(archive, url=f"{archive.url}?{urlencode({'v': version})}")


def origin_of(model: Model) -> JobOrigin:
    """The job that a model is the results of."""
    [origin] = model.sources
    return cast(JobOrigin, origin)


def source_of(model: Model, context: Context) -> JobSource:
    """The source of a job's files."""
    return cast(JobSource, context.resolver.source(origin_of(model)))


def choose(model: Model, files: Sequence[RemoteFile], context: Context) -> list[RemoteFile]:
    """Those of a job's files that are meant.

    Of a checkpoint its files, and what is loaded with it. By default, of a folder that was synced: what `pack` would
    take of it, without what only a resumed training reads; what is left is told. Raises `NotFound` with the candidates
    if nobody can say which checkpoint is meant.
    """
    source = source_of(model, context)
    origin = origin_of(model)
    if origin.checkpoint:
        return _of_checkpoint(model, files, context)
    is_default = not (origin.logs or origin.everything)
    if not is_default or not source.remote(origin.remote).is_synced(origin.job):
        return list(files)
    archive = _archive_of_the_model(files)
    if archive is None:
        return _what_pack_takes(model, files, context)
    if len(files) > 1:
        size = human_bytes(sum(file.size or 0 for file in files) - (archive.size or 0))
        what = f"left out: {counted(len(files) - 1, 'file')}, {size}, beside the archive of the model"
        context.on_event(Noticed(model.name, message=f"{what}; --all takes all"))
    return [archive]


def _of_checkpoint(model: Model, files: Sequence[RemoteFile], context: Context) -> list[RemoteFile]:
    """The files of the checkpoint that is asked for, by the rules of a run: no number takes another one. What a run
    does not know, such as the archive of a checkpoint, is meant by its own name or with the folder that it is in, if
    that alone is called so. Newer incomplete checkpoints that are passed over are told."""
    origin = origin_of(model)
    run = _run(model, files, context)
    try:
        chosen = run.checkpoint(origin.checkpoint)
    except NotFound as error:
        called_so = {_called_so(file.path.text, origin.checkpoint) for file in files} - {""}
        if len(called_so) == 1:
            return [file for file in files if is_in(file.path.text, called_so)]
        raise error.but(item=origin.job, hint=_candidates(run, files)) from error
    newer = run.incomplete_after(chosen) if origin.checkpoint in CHOICES else ()
    if newer:
        named = listed([f"{shown(one.name)} ({one.note})" for one in newer], most=_NAMED)
        message = f"not complete: {named}; {shown(chosen.name)} is taken"
        context.on_event(Noticed(model.name, message=message))
    entries = (*chosen.entries, *companions_of(run.tree, chosen).along)
    names = {entry.path for entry in entries}
    return [file for file in files if file.path.text in names]


def _candidates(run: Run, files: Sequence[RemoteFile]) -> str:
    """What to do if nobody can say which checkpoint is meant, with what there is."""
    candidates = [checkpoint.name for checkpoint in run.checkpoints]
    if not candidates:  # a folder of weights may be named as well, one directly in the job's
        candidates = [path for path, _ in run.runs_below if "/" not in path]
    if candidates:
        return f"name one with --checkpoint NAME: {names_for_a_hint(candidates)}; --all takes all"
    names = names_for_a_hint(file.path.text for file in files)
    return f"no checkpoint is recognised among its files: {names}; --all takes all"


def _called_so(path: str, checkpoint: str) -> str:
    """What of a path has the name of a checkpoint: the outermost folder above an archive, else the archive or the
    weights themselves; "" if nothing has it. Folders of weights are left to the rules of a run."""
    name = path.rpartition("/")[2]
    places = [path]
    if is_archive_name(name):
        places = [*reversed(folders_above(path)), path]
    elif not is_weights(name):
        return ""
    called = (place for place in places if _is_called(place.rpartition("/")[2], checkpoint))
    return next(called, "")


def _is_called(name: str, checkpoint: str) -> bool:
    """Tell whether the name of a folder, of an archive or of weights is that of a checkpoint; all but weights may be
    meant by the step or the epoch in it. Which is the latest or the best is more than a name can say."""
    if checkpoint in CHOICES:
        return False
    stem = stem_of(name).removesuffix(".tar")
    if checkpoint in (name, stem):
        return True
    number = parse_count(checkpoint)
    says = what_name_says(stem)
    return not is_weights(name) and number is not None and number in (says.step, says.epoch)


def _archive_of_the_model(files: Sequence[RemoteFile]) -> RemoteFile | None:
    """The one archive that is called ``model``, as managed training services call it; None if there is none, or if
    weights lie beside it."""
    archives = [file for file in files if _MODEL_ARCHIVE.fullmatch(file.path.name)]
    if len(archives) != 1 or any(is_weights(file.path.name) for file in files):
        return None
    return archives[0]


def _run(model: Model, files: Sequence[RemoteFile], context: Context) -> Run:
    """The run that the files of a job are. The trainer's records are read in a bucket alone: a link that a worker gave
    may be good for one download. Raises as `HttpClient.retry` if a record cannot be read."""
    urls = {file.path.text: file.url for file in files}
    origin = origin_of(model)
    is_synced = source_of(model, context).remote(origin.remote).is_synced(origin.job)
    assert context.network is not None
    http = context.network.http

    @cache
    def read(path: str) -> bytes:
        try:
            return http.retry(urls[path], partial(_small_file, http, urls[path]))
        except NotFound:  # any other failure rises: without its record another checkpoint would be the latest
            return b""

    sizes = {file.path.text: _SOME if file.size is None else file.size for file in files}
    return run_of_listing(model.name, sizes, read if is_synced else None)


def _small_file(http: HttpClient, url: str) -> bytes:
    with http.open("GET", url) as opened:
        return http.read(opened, LARGEST_RECORD)


def _what_pack_takes(model: Model, files: Sequence[RemoteFile], context: Context) -> list[RemoteFile]:
    beside = _run(model, files, context).beside_model
    chosen = []
    left = 0
    size = 0
    for file in files:
        name = file.path.text
        is_left = is_in(name, beside.paths) or matches(f"/{name}", _ONLY_TO_RESUME)
        if is_left and not is_archive_name(name):
            left += 1
            size += file.size or 0
        else:
            chosen.append(file)
    has_weights = any(is_weights(file.path.name) for file in chosen)
    if left and not has_weights:  # as of a model in shards, which only its trainer reads
        return list(files)
    if left:
        what = f"{counted(beside.count, 'checkpoint')} and what" if beside.count else "what"
        what = f"left out: {counted(left, 'file')}, {human_bytes(size)}: {what} only a resumed training reads"
        context.on_event(Noticed(model.name, message=f"{what}; --all takes all"))
    return chosen
