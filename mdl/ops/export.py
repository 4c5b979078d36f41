"""export: the files of locked models as lists that other programs read. Pure.

Paths are as `get` lays them out below the models folder. A URL that may hold a secret, or that only mdl understands,
is in no list: what is left out is told, file by file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from mdl.files import RemoteFile
from mdl.formatting import sum_line
from mdl.notebook import Tabular
from mdl.redact import has_secret
from mdl.values import value_class


@value_class
class ExportedFile:
    """A file of a list: its path below the models folder, its URL and those of the same bytes elsewhere, its size in
    bytes and its sha256, if they are known."""

    model: str
    path: str
    url: str
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None


@value_class
class Export(Tabular):
    """A list in the format that was asked for: its ``text``, the ``files`` in it, and those that are ``left_out``, by
    their paths, each with the reason."""

    format: str
    text: str
    files: tuple[ExportedFile, ...]
    left_out: Mapping[str, str]


_ONLY_BUNDLED = "only a bundle says what its sha256 is: online, 'mdl lock' asks its source"


def export(models: Mapping[str, Sequence[RemoteFile]], name: str) -> Export:
    """The files of ``models``, by their names, in the format ``name``, which is one of `FORMATS`."""
    text_of, why_not = FORMATS[name]
    files: list[ExportedFile] = []
    left_out: dict[str, str] = {}
    for model, remotes in sorted(models.items()):
        for remote in remotes:
            file = _exported(model, remote)
            reason = why_not(file, remote)
            if reason:
                left_out[file.path] = reason
            else:
                files.append(file)
    return Export(name, text_of(files), tuple(files), left_out)


def _why_no_sum(file: ExportedFile, remote: RemoteFile) -> str:
    if file.sha256 is not None:
        return ""
    is_bundled = remote.digest is not None and not remote.is_vouched_for
    return _ONLY_BUNDLED if is_bundled else "no sha256 of it is known"


def _why_no_url(file: ExportedFile, remote: RemoteFile) -> str:
    if file.url:
        return ""
    return "only mdl can fetch it: its URL has a query, which may be a secret, or is not http"


def _exported(model: str, remote: RemoteFile) -> ExportedFile:
    sha256 = None
    if remote.digest is not None and remote.is_vouched_for:
        sha256 = remote.digest.sha256
    urls = [url for url in (remote.url, *remote.mirrors) if _is_open(url)]
    first = urls[0] if urls else ""
    return ExportedFile(model, f"{model}/{remote.path}", first, tuple(urls[1:]), remote.size, sha256)


def _is_open(url: str) -> bool:
    """Whether any program can ask for the URL, and anybody may read it."""
    return url.startswith(("http://", "https://")) and not has_secret(url)


def _urls(files: Iterable[ExportedFile]) -> str:
    return "".join(f"{file.url}\n" for file in files)


def _sha256sums(files: Iterable[ExportedFile]) -> str:
    return "".join(sum_line(file.sha256 or "", file.path) for file in files)


def _aria2(files: Iterable[ExportedFile]) -> str:
    """The input file of ``aria2c -i``: https://aria2.github.io/manual/en/html/aria2c.html#input-file."""
    lines = []
    for file in files:
        lines.append("\t".join((file.url, *file.mirrors)))
        lines.append(f"  out={file.path}")
        if file.sha256:
            lines.append(f"  checksum=sha-256={file.sha256}")
    return "".join(f"{line}\n" for line in lines)


def _metalink(files: Iterable[ExportedFile]) -> str:
    """Metalink 4, RFC 5854, without a time: the same lock gives the same bytes."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<metalink xmlns="urn:ietf:params:xml:ns:metalink">']
    for file in files:
        lines.append(f"  <file name={quoteattr(file.path)}>")
        if file.size is not None:
            lines.append(f"    <size>{file.size}</size>")
        if file.sha256:
            lines.append(f'    <hash type="sha-256">{file.sha256}</hash>')
        for priority, url in enumerate((file.url, *file.mirrors), 1):
            lines.append(f'    <url priority="{priority}">{_as_text(url)}</url>')
        lines.append("  </file>")
    return "\n".join([*lines, "</metalink>", ""])


def _as_text(url: str) -> str:
    """The URL as the text of an XML element; without entities, whose ``;`` would look like the end of its path."""
    return url if escape(url) == url else f"<![CDATA[{url}]]>"


TextOf = Callable[[Iterable[ExportedFile]], str]
WhyNot = Callable[[ExportedFile, RemoteFile], str]
FORMATS: dict[str, tuple[TextOf, WhyNot]] = {
    "urls": (_urls, _why_no_url),
    "aria2": (_aria2, _why_no_url),
    "metalink": (_metalink, _why_no_url),
    "sha256sums": (_sha256sums, _why_no_sum),
}
"""How each format is written, and why a file is not in it ('': it is)."""
