"""Contents: what is in a bundle, and the texts in it that people and programs read. Pure.

A bundle has one folder: README.txt, SHA256SUMS of all the others, catalog.toml, mdl.lock, and models/<name>/<files>.
Nothing in it tells when, where or by whom it was made: the same models make the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mdl.catalog.lock import LockedFile, LockedModel
from mdl.catalog.model import Model
from mdl.errors import ProtocolError
from mdl.formatting import counted, human_bytes, sum_line
from mdl.redact import bare_url
from mdl.values import value_class

TOP = "mdl-bundle"
README = "README.txt"
SUMS = "SHA256SUMS"
CATALOG = "catalog.toml"
LOCK = "mdl.lock"
HEAD = (README, SUMS, CATALOG, LOCK)
"""What stands before the models, in this order, so that a bundle can be read as a stream."""
_SUM = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *]([^\n]+)")
"""A line of ``sha256sum``; programs on Windows write ``*`` before the name. A backslash before the digest says that
those in the name are doubled."""


@value_class
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


@value_class
class BundlePart:
    """A file that was written: all of a bundle, or a part of it; its size in bytes and its digest."""

    path: Path
    bytes: int
    sha256: str


@value_class
class BundleExport:
    """A bundle that was written. ``parts`` are its files; if there are several, ``sums`` is the file with their
    digests. ``bytes`` is the size of all parts. ``restricted`` are the models with files of a gated or private
    repository, as far as its hub said so. ``left_out`` names the files and models of whose URLs something is not in it
    because it may be a secret."""

    path: Path
    parts: tuple[BundlePart, ...]
    files: tuple[BundledFile, ...]
    sums: Path | None = None
    restricted: tuple[str, ...] = ()
    left_out: Sequence[str] = ()

    @property
    def bytes(self) -> int:
        """The size of the whole bundle."""
        return sum(part.bytes for part in self.parts)


@value_class
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


def verified_by(file: LockedFile) -> str:
    """What the bytes of a file are compared with: ``none`` if no digest is published of them."""
    is_published = file.digest is not None and not (file.tofu or file.bundled)
    return file.digest.algorithm if file.digest and is_published else "none"


def sums(digests: Mapping[str, str]) -> str:
    """Digests by paths, as ``sha256sum -c`` reads them."""
    return "".join(sum_line(digest, path) for path, digest in digests.items())


def read_sums(data: bytes, name: str = SUMS) -> dict[str, str]:
    """Digests by paths, which are not checked. ``name`` is that of the list. Raises `ProtocolError`."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8-sig", "replace").removesuffix("\n").split("\n"):
        match = _SUM.fullmatch(line.removesuffix("\r"))
        if not match:
            raise ProtocolError("it is damaged", item=name, hint="copy it again")
        is_escaped, digest, path = match.groups()
        if is_escaped:
            path = path.replace("\\\\", "\\")
        if path in found:
            raise ProtocolError("it is damaged", item=name, hint="copy it again")
        found[path] = digest.lower()
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

To import it with mdl. FILE is the tar, or its first part:

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
        lines.append(f"    unverified: no digest is published of {', '.join(doubtful)};")
        lines.append("              SHA256SUMS has that of the bytes that were downloaded first")
    return f"\n{model.name}\n" + "".join(f"{line}\n" for line in lines)


def _source(file: LockedFile) -> str:
    return file.repository or bare_url(file.source).rpartition("/")[0]


def _amount(files: Iterable[BundledFile]) -> str:
    sizes = [file.size for file in files]
    return f"{counted(len(sizes), 'file')}, {human_bytes(sum(sizes))}"
