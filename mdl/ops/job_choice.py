"""Job choice: which files of a job are meant where a run's layout tells: its latest or best checkpoint, or its model.

The rules are those of `mdl.runs`, over the paths that a remote lists. Of the files only small records are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

from mdl.bounds import LARGEST_RECORD
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.errors import MdlError, NotFound
from mdl.events import Noticed
from mdl.files import RemoteFile
from mdl.formatting import counted, human_bytes
from mdl.paths import matches
from mdl.results.base import JobOrigin, JobSource
from mdl.results.outputs import CHOICES, is_archive_name
from mdl.runs import companions_of, run_of_listing
from mdl.runs.checkpoint import Checkpoint
from mdl.runs.completeness import RESUME
from mdl.runs.run import Run

_SOME = 1
"""Bytes of a file whose size is not known: it is not empty."""
_RESUME = tuple(glob for glob, _ in RESUME)


def origin_of(model: Model) -> JobOrigin:
    """The job that a model is the results of."""
    [origin] = model.sources
    return cast(JobOrigin, origin)


def source_of(model: Model, tools: Context) -> JobSource:
    """The source of a job's files."""
    return cast(JobSource, tools.resolver.source(origin_of(model)))


def choose(model: Model, files: Sequence[RemoteFile], tools: Context) -> list[RemoteFile]:
    """Those of a job's files that are meant.

    Of ``latest`` and ``best`` the files of that checkpoint. By default, of a folder that was synced: what `pack` would
    take of it, without what only a resumed training reads; what is left is told. Raises `NotFound` with the candidates
    if nobody can say which checkpoint is meant.
    """
    source = source_of(model, tools)
    origin = origin_of(model)
    is_default = not (origin.checkpoint or origin.logs or origin.everything)
    if origin.checkpoint in CHOICES:
        run = _run(model, files, tools)
        chosen = run.checkpoint(origin.checkpoint)
        entries = (*chosen.entries, *companions_of(run.tree, chosen).along)
        names = {entry.path for entry in entries}
        return [file for file in files if file.path.text in names]
    if not is_default or not source.remote(origin.remote).is_synced(origin.job):
        return list(files)
    return _what_pack_takes(model, files, tools)


def _run(model: Model, files: Sequence[RemoteFile], tools: Context) -> Run:
    """The run that the files of a job are. The trainer's records are read in a bucket alone: a link that a worker gave
    may be good for one download."""
    urls = {file.path.text: file.url for file in files}
    origin = origin_of(model)
    is_synced = source_of(model, tools).remote(origin.remote).is_synced(origin.job)
    assert tools.network is not None
    http = tools.network.http

    @cache
    def read(path: str) -> bytes:
        if not is_synced:
            return b""
        try:
            with http.open("GET", urls[path]) as opened:
                return http.read(opened, LARGEST_RECORD)
        except MdlError:
            return b""

    sizes = {file.path.text: _SOME if file.size is None else file.size for file in files}
    return run_of_listing(model.name, sizes, read)


def _what_pack_takes(model: Model, files: Sequence[RemoteFile], tools: Context) -> list[RemoteFile]:
    run = _run(model, files, tools)
    others = _other_checkpoints(run)
    left_out = {entry.path for checkpoint in others for entry in checkpoint.entries}
    for checkpoint in run.checkpoints:
        for entry in checkpoint.entries:
            if matches(checkpoint.relative(entry), _RESUME):
                left_out.add(entry.path)
    chosen = []
    left = []
    for file in files:
        name = file.path.text
        is_left = name in left_out or matches(file.path.name, _RESUME)
        if is_left and not is_archive_name(name):
            left.append(file)
        else:
            chosen.append(file)
    if not chosen:
        return list(files)
    if left:
        size = human_bytes(sum(file.size or 0 for file in left))
        what = f"{counted(len(others), 'checkpoint')} and what" if others else "what"
        told = f"left out: {counted(len(left), 'file')}, {size}: {what} only a resumed training reads; --all takes all"
        tools.on_event(Noticed(model.name, message=told))
    return chosen


def _other_checkpoints(run: Run) -> list[Checkpoint]:
    """The checkpoints beside the finished model; none if there is no such model."""
    try:
        finished = run.finished()
    except NotFound:
        return []
    own = {entry.path for entry in finished.entries}
    return [row for row in run.checkpoints if not own.issuperset(entry.path for entry in row.entries)]
