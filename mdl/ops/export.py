"""export: the files of locked models as lists that other programs read. Pure.

Paths are as `get` lays them out below the models folder. A URL that may hold a secret, or that only mdl understands,
is in no list: what is left out is told, file by file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from mdl.files import RemoteFile
from mdl.formatting import sum_line
from mdl.redact import has_secret
from mdl.values import value_class


@value_class
class ExportedFile:
    """One file of a list: its path below the models folder, its URL and those of the same bytes elsewhere, its size in
    bytes and its sha256, if they are known."""

    model: str
    path: str
    url: str
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None


@value_class
class Export:
    """A list in the format that was asked for: its ``text``, the ``files`` in it, and those that are ``left_out``, by
    their paths, each with the reason."""

    format: str
    text: str
    files: tuple[ExportedFile, ...]
    left_out: Mapping[str, str]


_ONLY_BUNDLED = "only a bundle says what its sha256 is: online, 'mdl lock' asks its source"


def export(models: Mapping[str, Sequence[RemoteFile]], name: str) -> Export:
    """The files of ``models``, by their names, in the format ``name``, which is one of `FORMATS`."""
    files: list[ExportedFile] = []
    left_out: dict[str, str] = {}
    for model, remotes in sorted(models.items()):
        for remote in remotes:
            one = _exported(model, remote)
            if name == "sha256sums" and one.sha256 is None:
                is_bundled = remote.digest is not None and not remote.is_vouched_for
                left_out[one.path] = _ONLY_BUNDLED if is_bundled else "no sha256 of it is known"
            elif name != "sha256sums" and not one.url:
                left_out[one.path] = "only mdl can fetch it: its URL has a query, which may be a secret, or is not http"
            else:
                files.append(one)
    return Export(name, FORMATS[name](files), tuple(files), left_out)


def _exported(model: str, remote: RemoteFile) -> ExportedFile:
    digest = remote.digest
    is_known = digest is not None and digest.algorithm == "sha256" and remote.is_vouched_for
    sha256 = digest.hex if digest and is_known else None
    first, *others = [*filter(_is_open, (remote.url, *remote.mirrors)), ""]
    return ExportedFile(model, f"{model}/{remote.path}", first, tuple(filter(None, others)), remote.size, sha256)


def _is_open(url: str) -> bool:
    """Whether any program can ask for the URL, and anybody may read it."""
    return url.startswith(("http://", "https://")) and not has_secret(url)


def _urls(files: Iterable[ExportedFile]) -> str:
    return "".join(f"{one.url}\n" for one in files)


def _sha256sums(files: Iterable[ExportedFile]) -> str:
    return "".join(sum_line(one.sha256 or "", one.path) for one in files)


def _aria2(files: Iterable[ExportedFile]) -> str:
    """The input file of ``aria2c -i``: https://aria2.github.io/manual/en/html/aria2c.html#input-file."""
    text = ""
    for one in files:
        text += "\t".join((one.url, *one.mirrors)) + f"\n  out={one.path}\n"
        text += f"  checksum=sha-256={one.sha256}\n" if one.sha256 else ""
    return text


def _metalink(files: Iterable[ExportedFile]) -> str:
    """Metalink 4, RFC 5854, without a time: the same lock gives the same bytes."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<metalink xmlns="urn:ietf:params:xml:ns:metalink">']
    for one in files:
        lines.append(f"  <file name={quoteattr(one.path)}>")
        lines += [f"    <size>{one.size}</size>"] if one.size is not None else []
        lines += [f'    <hash type="sha-256">{one.sha256}</hash>'] if one.sha256 else []
        urls = enumerate((one.url, *one.mirrors), 1)
        lines += [f'    <url priority="{priority}">{_as_text(url)}</url>' for priority, url in urls]
        lines.append("  </file>")
    return "\n".join([*lines, "</metalink>", ""])


def _as_text(url: str) -> str:
    """The URL as the text of an XML element; without entities, whose ``;`` would look like the end of its path."""
    return url if escape(url) == url else f"<![CDATA[{url}]]>"


FORMATS: dict[str, Callable[[Iterable[ExportedFile]], str]] = {
    "urls": _urls,
    "aria2": _aria2,
    "metalink": _metalink,
    "sha256sums": _sha256sums,
}
"""How each format is written."""
