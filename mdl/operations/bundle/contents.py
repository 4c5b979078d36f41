"""Contents: what is in a bundle, and the texts in it that people and programs read. Pure.

A bundle has one folder: README.txt, SHA256SUMS of all the others, catalog.toml, mdl.lock, and models/<name>/<files>.
Nothing in it depends on when, where or by whom it was made: the same models make the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mdl.catalog.lock import LockedFile, LockedModel
from mdl.catalog.model import CatalogFile, Model
from mdl.errors import ProtocolError
from mdl.formatting import counted, human_bytes
from mdl.redact import bare_url, has_secret

TOP = "mdl-bundle"
README, SUMS, CATALOG, LOCK = "README.txt", "SHA256SUMS", "catalog.toml", "mdl.lock"
HEAD = (README, SUMS, CATALOG, LOCK)
"""What stands before the models, in this order, so that a bundle can be read as a stream."""
_SUM = re.compile(r"([0-9a-f]{64})  ([^\n]+)")


@dataclass(frozen=True)
class BundledFile:
    """One file of a bundle. ``verified`` says which published digest its bytes were compared with; ``none``: there is
    none, and the bundle vouches for the bytes that came first. ``action`` is ``packed``, ``imported``, or ``kept`` if
    it was here already."""

    model: str
    path: str
    size: int
    sha256: str
    verified: str
    action: str = "packed"

    @property
    def place(self) -> str:
        """Its path in the bundle."""
        return place_of(self.model, self.path)


@dataclass(frozen=True)
class BundlePart:
    """A file that was written: all of a bundle, or a part of it; its size in bytes and its digest."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class BundleExport:
    """A bundle that was written. ``parts`` are its files; if there are several, ``sums`` is the file with their
    digests. ``bytes`` is the size of all parts."""

    path: Path
    parts: tuple[BundlePart, ...]
    files: tuple[BundledFile, ...]
    sums: Path | None = None

    @property
    def bytes(self) -> int:
        """The size of the whole bundle."""
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True)
class BundleImport:
    """A bundle that was imported. ``folders`` are those of its models, by their names. ``added`` are the models that
    the catalog got, and ``locked`` those that the lock got; ``catalog`` and ``lock`` are the paths of the two."""

    path: Path
    files: tuple[BundledFile, ...]
    folders: Mapping[str, Path]
    added: tuple[str, ...]
    locked: tuple[str, ...]
    catalog: Path
    lock: Path


def place_of(model: str, path: str) -> str:
    """Where a bundle has a file of a model."""
    return f"models/{model}/{path}"


def portable(model: Model) -> Model:
    """The model as it may leave this machine: without the secrets that the URLs of its files have."""
    files = (replace(one, url=_open_url(one.url), mirrors=_open_urls(one.mirrors)) for one in model.files)
    return replace(model, files=tuple(files))


def portable_lock(locked: LockedModel, entry: str) -> LockedModel:
    """The same of a locked model; ``entry`` stands for the entry that it is locked from."""
    files = (replace(one, source=_open_url(one.source), mirrors=_open_urls(one.mirrors)) for one in locked.files)
    return LockedModel(locked.name, entry, tuple(files))


def _open_urls(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(_open_url(url) for url in urls)


def _open_url(url: str) -> str:
    return bare_url(url) if has_secret(url) else url


def entry_facts(model: Model) -> dict[str, Any]:
    """A model as the keys of its entry in a catalog; empty ones are left out by whoever writes them."""
    texts = {key: getattr(model, key) for key in ("title", "license", "note", "homepage")}
    kind = {"kind": model.kind} if model.kind != Model.kind else {}
    sources = [str(origin) for origin in model.sources]
    lists = {"tags": list(model.tags), "include": list(model.include), "exclude": list(model.exclude)}
    source = {"source": sources[0] if len(sources) == 1 else sources}
    return texts | kind | source | lists | {"files": [_file_facts(file) for file in model.files]}


def _file_facts(file: CatalogFile) -> dict[str, Any]:
    facts = {"id": file.id, "path": file.path.text, "url": file.url, "mirrors": list(file.mirrors), "size": file.size}
    facts["role"] = file.role if file.role != CatalogFile.role else ""
    facts["sha256"] = file.digest.hex if file.digest else ""
    return {key: value for key, value in facts.items() if value not in ("", [], None)}


def sums(digests: Mapping[str, str]) -> str:
    """Digests by paths, as ``sha256sum -c`` reads them."""
    return "".join(f"{digest}  {path}\n" for path, digest in digests.items())


def read_sums(text: str) -> dict[str, str]:
    """Digests by paths, which are not checked. Raises `ProtocolError`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _SUM.fullmatch(line)
        if not match or match[2] in found:
            raise ProtocolError("it is damaged", item=SUMS, hint="copy the bundle again")
        found[match[2]] = match[1]
    return found


def readme(models: Sequence[Model], locks: Mapping[str, LockedModel], files: Sequence[BundledFile]) -> str:
    """What a person who finds the bundle needs to know."""
    of_model = {model.name: [file for file in files if file.model == model.name] for model in models}
    head = f"{counted(len(models), 'model')}, {_amount(files)}\n\n{_HOW}"
    return head + "".join(_about(model, locks[model.name], of_model[model.name]) for model in models)


_HOW = f"""\
This is a bundle of mdl: models for a machine without a network.

To check it, in this folder; no other program is needed:

    sha256sum -c {SUMS}

To import it with mdl. FILE is the tar, its first part, or this folder:

    mdl bundle import FILE

To use it without mdl: each folder below models/ is one model, with the files as their source has them.

    tar -xf FILE.tar
    cat FILE.tar.* | tar -xf -         (if it came in parts)

What else is here: {CATALOG} says what the models are, and {LOCK} at which commits and with which digests.
"""


def _about(model: Model, locked: LockedModel, files: Sequence[BundledFile]) -> str:
    """One model: what it is, where it comes from, its licence and its size, and what nobody vouches for."""
    sources = sorted({_source(file) for file in locked.files})
    rows = {
        "title": model.title,
        "kind": model.kind,
        "from": ", ".join(sources),
        "commit": ", ".join(sorted({file.revision for file in locked.files if file.revision})),
        "licence": model.license or "not stated; look at its source",
        "size": _amount(files),
        "note": model.note,
    }
    lines = [f"    {key + ':':<10}{value}" for key, value in rows.items() if value]
    doubtful = [file.path for file in files if file.verified == "none"]
    if doubtful:
        lines.append(f"    unverified: nobody published a digest of {', '.join(doubtful)};")
        lines.append("              SHA256SUMS has that of the bytes that were downloaded first")
    return f"\n{model.name}\n" + "".join(f"{line}\n" for line in lines)


def _source(file: LockedFile) -> str:
    return file.repository or bare_url(file.source).rpartition("/")[0]


def _amount(files: Iterable[BundledFile]) -> str:
    sizes = [file.size for file in files]
    return f"{counted(len(sizes), 'file')}, {human_bytes(sum(sizes))}"
