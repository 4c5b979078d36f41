"""The lock file, ``mdl.lock``: its text, how it is read, and how it is replaced while other processes may change it.

The text is sorted, has a line for each file and no times: two machines write the same bytes. (ADR 77)
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mdl.bounds import LARGEST_DOCUMENT, whole_number
from mdl.catalog.lock import Lock, LockedFile, LockedModel
from mdl.catalog.model import Model
from mdl.config.places import make_folder_of
from mdl.disk import publish
from mdl.disk.mutex import folder_lock
from mdl.disk.safe_open import UNREADABLE_ERRNOS, read_whole
from mdl.errors import MdlError, StateError, Unsafe, storage_error
from mdl.files import role_of
from mdl.hashing import Digest
from mdl.paths import RelPath, shown
from mdl.redact import bare_url
from mdl.reports import LeftOutFile, ModelReport, Report
from mdl.sources import is_reference
from mdl.toml import parse_toml

VERSION = 2
_HEAD = f"# Written by 'mdl lock'; edit the catalog instead.\nversion = {VERSION}\n"
_ALGORITHMS = ("sha256", "git-sha1")
_AGAIN = "restore it from version control; or remove it, and 'mdl lock' writes what the sources have now"
_HASHED = ("fetched", "kept")
"""The actions after which the bytes of a file were hashed in this run."""


# The text of a lock.


def lock_text(lock: Lock) -> str:
    """Write a lock as TOML, sorted by model and path."""
    blocks = [_HEAD]
    for name in sorted(lock.models):
        blocks.append(_model_text(lock.models[name]))
    return "\n".join(blocks)


def _model_text(locked: LockedModel) -> str:
    """The block of a model. Its entry comes last, so that it is missed if the text was cut."""
    base = _common_base(locked.files)
    lines = ["[[model]]", f"name = {_toml(locked.name)}"]
    if base:
        lines.append(f"source = {_toml(base)}")
    if locked.left_out:
        lines.append(f"left_out = {_toml_lines([_left_out_facts(file) for file in locked.left_out])}")
    lines.append(f"files = {_toml_lines([_file_facts(file, base) for file in locked.files])}")
    lines.append(f"entry = {_toml(locked.entry)}")
    return "\n".join(lines) + "\n"


def _common_base(files: Sequence[LockedFile]) -> str:
    """The beginning of the sources of most files, before ``/`` and their paths: a repository at its commit; '' if no
    source ends with its file's path."""
    bases: Counter[str] = Counter()
    for file in files:
        end = f"/{file.path.text}"
        if file.source.endswith(end):
            bases[file.source.removesuffix(end)] += 1
    return max(bases, key=lambda base: (bases[base], base), default="")


def _file_facts(file: LockedFile, base: str) -> dict[str, Any]:
    """The line of a file: path, size, digest, and what does not follow from its path and its model."""
    facts: dict[str, Any] = {"path": file.path.text}
    if file.size is not None:
        facts["size"] = file.size
    if file.digest is not None:
        facts[file.digest.algorithm] = file.digest.hex
    if not base or file.source != f"{base}/{file.path.text}":
        facts["source"] = file.source
    if file.mirrors:
        facts["mirrors"] = list(file.mirrors)
    if file.role != role_of(file.path.text):
        facts["role"] = file.role
    if file.tofu:
        facts["tofu"] = True
    if file.bundled:
        facts["bundled"] = True
    return facts


def _left_out_facts(file: LeftOutFile) -> dict[str, Any]:
    if file.size is None:
        return {"path": file.path}
    return {"path": file.path, "size": file.size}


def _toml_lines(tables: Sequence[dict[str, Any]]) -> str:
    """An array with one table a line."""
    lines = []
    for table in tables:
        pairs = ", ".join(f"{key} = {_toml(value)}" for key, value in table.items())
        lines.append(f"  {{ {pairs} }},\n")
    return "[\n" + "".join(lines) + "]"


def _toml(value: Any) -> str:
    """Text, integers, true and lists of text: JSON writes them as TOML reads them, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_lock(text: str) -> Lock:
    """Read the text of a lock. Raises `StateError` if it is not a lock, or is one of a newer mdl."""
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise StateError(f"the lock cannot be read: {shown(str(error))[:80]}", hint=_AGAIN) from None
    models: dict[str, LockedModel] = {}
    try:
        version = whole_number(data["version"])
        if version > VERSION:
            raise StateError(f"a newer mdl wrote this lock: it has version {version}", hint="use a newer mdl")
        if version != VERSION:
            raise ValueError(f"it has the version {version}")
        for facts in data.get("model", []):
            locked = _parse_model(facts)
            if locked.name in models:
                raise ValueError(f"{locked.name} occurs twice")
            models[locked.name] = locked
    except StateError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, MdlError) as error:
        raise StateError(f"the lock is damaged: {shown(str(error))[:80]}", hint=_AGAIN) from None
    return Lock(models)


def _parse_model(facts: dict[str, Any]) -> LockedModel:
    base = _typed(facts.get("source", ""), str)
    files = [_parse_file(file, base) for file in facts["files"]]
    left_out = [LeftOutFile(_typed(file["path"], str), _parse_size(file)) for file in facts.get("left_out", [])]
    name = RelPath.parse(_typed(facts["name"], str)).text
    return LockedModel(name, _typed(facts["entry"], str), tuple(files), tuple(left_out))


def _parse_file(facts: dict[str, Any], base: str) -> LockedFile:
    path = _typed(facts["path"], str)
    source = _typed(facts.get("source", f"{base}/{path}"), str)
    mirrors = [_typed(url, str) for url in _typed(facts.get("mirrors", []), list)]
    for url in (source, *mirrors):
        if not is_reference(url):
            raise ValueError("a source that is not a reference")
    return LockedFile(
        RelPath.of_repository(path),
        source,
        _parse_size(facts),
        _parse_digest(facts),
        tofu=_typed(facts.get("tofu", False), bool),
        mirrors=tuple(mirrors),
        role=_typed(facts.get("role", role_of(path)), str),
        bundled=_typed(facts.get("bundled", False), bool),
    )


def _parse_digest(facts: dict[str, Any]) -> Digest | None:
    digest: Digest | None = None
    for algorithm in _ALGORITHMS:
        if algorithm in facts:
            if digest is not None:
                raise ValueError("a file with two digests")
            digest = Digest.parse(algorithm, facts[algorithm])
    return digest


def _parse_size(facts: dict[str, Any]) -> int | None:
    if "size" not in facts:
        return None
    return whole_number(facts["size"])


_Type = TypeVar("_Type", str, bool, list[Any])


def _typed(value: Any, kind: type[_Type]) -> _Type:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value


# The file.


def read_lock(path: Path, catalog: Path) -> Lock | None:
    """Read the lock at ``path`` of a ``catalog``; None if there is none.

    Raises `StateError` for a broken one, `Unsafe` for one that belongs to neither the user nor root nor the catalog's
    owner, `StorageError`.
    """
    owners = {os.geteuid(), 0}
    with contextlib.suppress(OSError):
        owners.add(catalog.stat().st_uid)
    try:
        return parse_lock(read_whole(path, LARGEST_DOCUMENT, owners=owners).decode())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise StateError("the lock cannot be read: it is not UTF-8", item=str(path), hint=_AGAIN) from None
    except Unsafe as error:
        hint = "look at it; if it is right, replace it with a copy of your own, else remove it and run 'mdl lock'"
        raise error.but(hint=hint) from error
    except StateError as error:
        raise error.on(str(path)) from None
    except OSError as error:
        if error.errno in UNREADABLE_ERRNOS:
            raise StateError(f"the lock cannot be read: {error.strerror}", item=str(path)) from error
        raise storage_error(error, str(path)) from error


def write_lock(path: Path, lock: Lock) -> None:
    """Replace the lock at ``path`` in one step. Raises `StorageError`."""
    try:
        make_folder_of(path)
        publish.write_file(path, lock_text(lock).encode(), mode=0o666 & ~publish.umask(), sweep_first=True)
    except OSError as error:
        raise storage_error(error, str(path)) from error


def update_lock(path: Path, catalog: Path, change: Callable[[Lock], Lock]) -> None:
    """Change the lock at ``path`` of a ``catalog`` as it is now; it is empty if there is none. Raises `StateError`,
    `StorageError`, `Busy`."""
    with folder_lock(path.parent):
        current = read_lock(path, catalog) or Lock()
        while True:
            changed = change(current)
            if changed == current:
                return
            latest = read_lock(path, catalog) or Lock()
            if latest == current:
                write_lock(path, changed)
                return
            current = latest  # somebody without the mutex has written it meanwhile


def with_first_digests(lock: Lock, models: Sequence[Model], report: Report) -> Lock:
    """The lock with the digests of what came, for files without a published digest: just now, or when mdl was killed
    before it could write them down."""
    reports = {model.name: model for model in report.models}
    for model in models:
        if model.name in reports and lock.covers(model):
            hashed = _hashed_files(reports[model.name])
            locked = lock.models[model.name]
            files = tuple(_with_first_digest(file, hashed) for file in locked.files)
            lock = lock.with_model(replace(locked, files=files))
    return lock


_Hashed = Mapping[tuple[str, str], tuple[Digest, int | None]]
"""The digests and sizes of files, by their paths and open URLs."""


def _hashed_files(report: ModelReport) -> _Hashed:
    """The files of a model whose bytes were hashed in this run."""
    hashed = {}
    for file in report.files:
        if file.sha256 and file.action in _HASHED:
            hashed[file.path, file.url] = (Digest("sha256", file.sha256), file.size)
    return hashed


def _with_first_digest(file: LockedFile, hashed: _Hashed) -> LockedFile:
    key = (file.path.text, bare_url(file.source))
    if file.digest is not None or key not in hashed:
        return file
    return file.trusted_first(*hashed[key])
