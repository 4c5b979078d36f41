"""URLs: what a catalog or a command line names by itself, on any web server or CDN, and the file that it means. Pure.

Nothing here asks anything of a server; a URL that programs read in two ways is refused before a socket is opened.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from functools import lru_cache
from typing import ClassVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mdl import urls
from mdl.errors import ProtocolError, UsageError
from mdl.formatting import listed
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.redact import bare_url
from mdl.sources import Origin, reference_forms
from mdl.sources.hub_origin import parse_page
from mdl.urls import identifying_parameters, shown_url
from mdl.values import value_class

_LONGEST_NAME = 120
_EXTENSION = r".+\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,12}"
FILE_NAME = (
    r"(?i).*\.(safetensors|gguf|ggml|onnx|pt|pth|ckpt|bin|h5|hdf5|keras|tflite|npy|npz|msgpack|parquet|arrow|pkl|model|spm"
    r"|tiktoken|vocab|json|jsonl|yaml|yml|toml|xml|md|txt|csv|tsv|jinja|py|html|png|jpe?g|webp|gif|svg|wav|mp3|flac"
    r"|mp4|zip|tar|gz|tgz|bz2|xz|zst|7z)"
)
"""The names of files, by their extensions."""
_DIGESTS = r"(?i)(?:md5|sha-?[0-9]+|sha3-[0-9]+|blake[0-9a-z]+|crc32c?)"
"""Names of algorithms in a fragment, which people expect to be compared."""
_PLAIN_HOST = r"[A-Za-z0-9.-]+(:[0-9]+)?"
_READABLE_PART = r"(?!-)(?!.*--)[A-Za-z0-9._-]+(?<!-)"
"""A host or folder that can be read off a name in which ``--`` stands between the parts."""


@value_class
class UrlOrigin(Origin):
    """A file under an absolute http(s) URL, and its digest if the fragment of the URL has it."""

    scheme: ClassVar[str] = "https"

    url: str
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"{self.url}#{self.digest.algorithm}={self.digest.hex}" if self.digest else self.url

    def holds(self, place: Origin) -> bool:
        """The same URL, to the last character: nothing is below a file. A digest beside it says nothing of where."""
        return isinstance(place, UrlOrigin) and place.url == self.url

    @property
    def label(self) -> str:
        return shown_url(self.url)

    @property
    def last_part(self) -> str:
        """The last part of the path of the URL, percent-decoded and without ``;parameters``."""
        return unquote(urlsplit(bare_url(self.url)).path.rpartition("/")[2])

    @property
    def is_named(self) -> bool:
        """Return whether the URL ends in a name with an extension. If not, its server is asked for the name."""
        return has_extension(self.last_part)

    @property
    def name_in_query(self) -> str:
        """The file's name if one value of the query, and no other, ends in one; else ''. A value that has no extension
        that files are known by may be a secret."""
        names: set[str] = set()
        for _, value in parse_qsl(urlsplit(self.url).query, keep_blank_values=True):
            name = value.rpartition("/")[2]
            if re.fullmatch(FILE_NAME, name):
                names.add(name)
        return names.pop() if len(names) == 1 else ""

    @property
    def file_name(self) -> RelPath:
        """The name that the URL ends in."""
        if not self.last_part or "/" in self.last_part:
            raise UsageError("the URL ends in no file name", item=self.label, hint="name the file: mdl get URL -o NAME")
        return RelPath.parse(self.last_part)

    @property
    def folder(self) -> str:
        """Named after host and folders, so that two files of one name never meet; if the server names the file, after
        all of the URL's path. What these do not tell, a hash at the end does."""
        parts = urlsplit(bare_url(self.url))
        names = [parts.netloc, *unquote(parts.path).split("/")]
        if self.is_named:
            names.pop()
        place = "--".join(name for name in names if name)
        folder = re.sub(r"[^A-Za-z0-9._-]+", "_", place).strip("._-") or "download"
        parameters = identifying_parameters(self.url)
        hashed = repr(parameters) if parameters else ""
        if not (self.is_named and _is_readable_from_name(parts)):
            hashed += f" of {parts.netloc}{parts.path}"
        if len(folder) > _LONGEST_NAME:
            folder = folder[:_LONGEST_NAME]
            hashed = place + hashed
        if not hashed:
            return folder
        return f"{folder}-{hashlib.sha256(hashed.encode()).hexdigest()[:8]}"


def has_extension(name: str) -> bool:
    """Return whether a name ends like that of a file: ``.7z`` is an extension, the ``.1`` of a version is not."""
    return re.fullmatch(_EXTENSION, name) is not None


def _is_readable_from_name(parts: SplitResult) -> bool:
    """Return whether host and folders can be read off the name that is made of them, and the file's name off its
    own."""
    _, *folders, last = parts.path.split("/")
    if not re.fullmatch(_PLAIN_HOST, parts.netloc) or "\ufffd" in unquote(last):
        return False
    for part in (parts.netloc.partition(":")[0], *folders):
        if not re.fullmatch(_READABLE_PART, part):
            return False
    return not folders or not folders[-1].endswith((".", "_"))


def parse(text: str, page_hosts: Collection[str]) -> Origin:
    """A page of the hub as the hub's origin, any other URL as that one file. Raises `UsageError`, `Unsafe`."""
    url = check_url(text)
    return parse_page(url, page_hosts) or UrlOrigin(file_url(url), digest_in(url))


@lru_cache(maxsize=2**14)  # a URL of a catalog is read several times in one command
def check_url(url: str) -> str:
    """As `mdl.urls.check_url`; an error about the scheme names every form of a reference."""
    try:
        return urls.check_url(url)
    except urls.OtherScheme as error:
        message = f"not a usable URL: only {listed(reference_forms())}"
        raise error.but(message=message, hint="write https://… or hf:org/repo") from None


def file_url(url: str) -> str:
    """As `check_url`, without a ``#fragment``: no server is told of it. See `digest_in` for what it may tell."""
    return check_url(url).partition("#")[0]


def digest_in(url: str) -> Digest | None:
    """The digest of a file in the fragment of its URL, as pip writes it: ``#sha256=…``; None if there is none. Raises
    `UsageError` for a wrong one, and for an algorithm that mdl does not compare."""
    for part in url.partition("#")[2].split("&"):
        algorithm, equals, text = part.partition("=")
        if equals and algorithm.lower() == "sha256":
            return sha256_of(text, shown_url(url))
        if equals and re.fullmatch(_DIGESTS, algorithm):
            hint = "give the sha256 of the file, or leave the fragment out"
            raise UsageError(f"mdl compares sha256, not {algorithm.lower()}", item=shown_url(url), hint=hint)
    return None


def sha256_of(text: str, item: str) -> Digest:
    """The digest that a person wrote, in capital or small letters. Raises `UsageError` about ``item``."""
    try:
        return Digest.parse("sha256", text.strip().lower().removeprefix("sha256:"))
    except ProtocolError as error:
        reason = f"not a sha256: it has {len(text.strip())} characters"
        raise UsageError(reason, item=item, hint="a sha256 has 64 digits, 0-9 and a-f") from error
