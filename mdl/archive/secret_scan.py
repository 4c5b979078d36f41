"""Secret scan: whether a file of a run holds a token, a key, or the memory of a program, before it is packed. Pure.

A table has one row for each kind of secret. The bytes are looked at as they are, in windows; nothing is unpickled. A
pickle has its texts in clear, and a torch file stores its pickle. What a zip has deflated, and a gzip file, is inflated
for the look, up to a bound. Weights are looked at in part: the trainer's settings are in a pickle with the tensors.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

from mdl.bounds import LARGEST_DOCUMENT
from mdl.values import value_class
from mdl.weights.end_records import ZIP_MEMBER

_WINDOW = 2**20
_OVERLAP = 16 * 2**10
"""Two windows share some bytes, so that a secret across their border is seen whole."""
_INFLATED_BLOCK = 256 * 2**10
ReadAt = Callable[[int, int], bytes]
"""Gives so many bytes from an offset; fewer at the end of the file."""


_ANY = re.compile(rb"")
_A_WORD = re.compile(
    rb"(?:^|[^A-Za-z0-9]|\x8c[\x00-\xff]|[\n(NRabdelstu]V|\\[nrt]|%[0-9A-Fa-f]{2}|[0-9\[]m)\Z", re.DOTALL
)
"""What stands before a token that does not begin inside a word: what is no letter or digit; a pickle's opcode and
length of a text, or its opcode ``V`` for one, behind another opcode; an escape."""
_GAP = rb"(?:[^A-Za-z0-9]{0,12}|[\x00-\xff]{0,8}?(?:\x8c[\x00-\xff]|X[\x00-\xff]\0\0\0|\na?V))"
"""What stands between a key's name and its value: signs, or a pickle's opcodes between two texts."""
_OF_WANDB = re.compile(
    rb"(?i:wandb)(?:[\x00-\xff]{0,160}(?i:key|token|password|secret)" + _GAP + rb"|[\x00-\xff]{0,40}(?i:login)"
    rb"(?:\s{1,8}--[a-z]{1,20}(?:=\S{1,80})?){0,3}\s{1,8}|[\"']?\s{0,4}[:=]\s{0,4}[\"']?)\Z"
)
_OF_AWS = re.compile(rb"(?i:secret[_-]?(?:access[_-]?)?key)" + _GAP + rb"\Z")
_AWS_SECRET = rb"[A-Za-z0-9/+]{40}"
_BEFORE_AWS_SECRET = rb"(?:(?<=\nV)|(?<=\naV)|(?<![A-Za-z0-9/+])(?!(?<=\n)a?V" + _AWS_SECRET + rb"))"
"""It begins a word, or stands behind a pickle's opcode for a text, which is a letter and no part of it."""


@value_class
class SecretKind:
    """One kind of secret, as its ``pattern`` finds it; the last group is the part in whose place a placeholder has
    something else. What stands before it must match ``behind``. Bytes that have none of the ``marks``, in lower case,
    hold none of this kind."""

    name: str
    marks: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    behind: re.Pattern[bytes] = _A_WORD


KINDS = (
    SecretKind("a Hugging Face token", (b"hf_",), re.compile(rb"hf_([A-Za-z0-9]{30,}+)")),
    SecretKind("an AWS access key", (b"akia", b"asia"), re.compile(rb"A(?:KI|SI)A([A-Z0-9]{16})(?![A-Z0-9])")),
    SecretKind(
        "an AWS secret key", (b"secret",), re.compile(_BEFORE_AWS_SECRET + rb"(" + _AWS_SECRET + rb")"), _OF_AWS
    ),
    SecretKind(
        "a Weights & Biases key",
        (b"wandb",),
        re.compile(rb"(?<![0-9a-f])([0-9a-f]{40})(?![0-9a-f])"),
        _OF_WANDB,
    ),
    SecretKind(
        "an API key",
        (b"sk-",),
        re.compile(rb"sk-((?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{20,}+|[A-Za-z0-9]{20,}+)"),
    ),
    SecretKind(
        "a GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        re.compile(rb"g(?:h[opusr]|ithub_pat)_([A-Za-z0-9_]{22,}+)"),
    ),
    SecretKind("a RunPod key", (b"rpa_",), re.compile(rb"rpa_([A-Za-z0-9]{30,}+)")),
    SecretKind("a Replicate token", (b"r8_",), re.compile(rb"r8_([A-Za-z0-9]{37})")),
    SecretKind("an NVIDIA key", (b"nvapi-",), re.compile(rb"nvapi-([A-Za-z0-9_-]{60,}+)")),
    SecretKind("a GitLab token", (b"glpat-",), re.compile(rb"glpat-([A-Za-z0-9_-]{20,}+)")),
    SecretKind("a Google key", (b"aiza",), re.compile(rb"AIza([A-Za-z0-9_-]{35})")),
    SecretKind("a Slack token", (b"xox",), re.compile(rb"xox[abprs]-([A-Za-z0-9-]{20,}+)")),
    SecretKind(
        "a JSON web token",
        (b"eyj",),
        re.compile(rb"eyJ([A-Za-z0-9_-]{5,400}+\.eyJ[A-Za-z0-9_-]{2,4000}+\.[A-Za-z0-9_-]{5,400})"),
    ),
    SecretKind(
        "a private key", (b"private key",), re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}(PRIVATE KEY)"), _ANY
    ),
)
"""Every kind that is looked for."""

_LOOK_BEHIND = 256
_MANY_X = re.compile(rb"x{4}", re.IGNORECASE)
_ENOUGH = 16
"""Letters that are the same: behind the last of a text, a pickle may have an opcode that is a letter."""

_SETTINGS = 2**20
"""Bytes of a pickle with tensors that are looked at: the trainer's settings are there."""
_DIRECTORY = 2**20
_BARE_PICKLE = b"\x80"
_OLD_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""The number with which torch's files of before 2020 begin, behind the pickle's protocol."""

_ELF = b"\x7fELF"
_IS_CORE = (b"\4\0", b"\0\4")
_CORE_AT = 16
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_DEFLATED_MEMBER = re.compile(rb"PK\x03\x04[\x00-\xff]{4}\x08\x00", re.DOTALL)
_LOCAL_HEAD = 30
_GZIP = b"\x1f\x8b\x08"
_RAW_DEFLATE = -15
_GZIP_DEFLATE = 31


@value_class
class HeldSecret:
    """The ``kind`` of a secret in a file, in words, and whether that file is weights."""

    kind: str
    is_in_weights: bool


def held_secret(read: ReadAt, size: int, *, is_model: bool) -> HeldSecret | None:
    """Return the secret that a file of ``size`` bytes holds; None if none is seen. ``is_model``: by its name it is the
    weights of a model."""
    is_in_weights = is_model and _has_tensors(read, size)
    if is_in_weights:
        size = min(size, _SETTINGS)
    kind = secret_in(read, size)
    return HeldSecret(kind, is_in_weights) if kind else None


def _has_tensors(read: ReadAt, size: int) -> bool:
    """Tell whether a pickle may hold tensors: a torch file of either kind with any. A bare pickle without torch's own
    number is a few values, like a trainer's arguments."""
    head = read(0, len(_OLD_TORCH) + 2)
    if head.startswith(ZIP_MEMBER):
        return b"/data/" in read(max(0, size - _DIRECTORY), _DIRECTORY)
    return not head.startswith(_BARE_PICKLE) or _OLD_TORCH in head


def secret_in(read: ReadAt, size: int) -> str:
    """Return what kind of secret a file of ``size`` bytes holds, in words; "" if none is seen. ``read`` gives its
    bytes."""
    head = read(0, _LOCAL_HEAD)
    if head.startswith(_ELF) and head[_CORE_AT : _CORE_AT + 2] in _IS_CORE:
        return "the memory of a program"
    most = min(size, LARGEST_DOCUMENT)
    is_utf16 = head.startswith(_UTF16)
    may_inflate = LARGEST_DOCUMENT
    if head.startswith(_GZIP):
        kind, _ = _inflated_secret(read, 0, most, _GZIP_DEFLATE, may_inflate)
        return kind
    for at in range(0, max(most, 1), _WINDOW):
        start = max(0, at - _OVERLAP)
        window = read(start, min(at + _WINDOW, most) - start)
        kind = _secret_in_window(window.replace(b"\0", b"") if is_utf16 else window)
        if kind:
            return kind
        for member in _DEFLATED_MEMBER.finditer(window):
            data_at = start + member.start() + _data_offset(window[member.start() :][:_LOCAL_HEAD])
            kind, inflated = _inflated_secret(read, data_at, most, _RAW_DEFLATE, may_inflate)
            may_inflate -= inflated
            if kind:
                return kind
    return ""


def _data_offset(local_header: bytes) -> int:
    """Return how far behind the beginning of its header the data of a zip's member begins."""
    name, extra = (int.from_bytes(local_header[at : at + 2], "little") for at in (26, 28))
    return _LOCAL_HEAD + name + extra


def _inflated_secret(read: ReadAt, at: int, stop: int, wbits: int, most: int) -> tuple[str, int]:
    """The kind of secret in the deflated data from ``at`` on, and how many bytes of it were inflated."""
    inflated = 0
    before = b""
    for block in _inflated(read, at, stop, wbits):
        inflated += len(block)
        kind = _secret_in_window(before + block)
        if kind or inflated >= most:
            return kind, inflated
        before = (before + block)[-_OVERLAP:]
    return "", inflated


def _inflated(read: ReadAt, at: int, stop: int, wbits: int) -> Iterator[bytes]:
    """Return what the deflated data from ``at`` on holds, as far as it can be inflated."""
    inflater = zlib.decompressobj(wbits)
    waiting = b""
    while not inflater.eof:
        if not waiting:
            waiting = read(at, min(_INFLATED_BLOCK, max(0, stop - at)))
            at += len(waiting)
        try:
            block = inflater.decompress(waiting, _INFLATED_BLOCK)
        except zlib.error:
            return
        if not waiting and not block:
            return
        waiting = inflater.unconsumed_tail
        if block:
            yield block


def _secret_in_window(window: bytes) -> str:
    """The kind of the first secret in these bytes; "" if there is none."""
    lowered = window.lower()
    for kind in KINDS:
        if not any(mark in lowered for mark in kind.marks):
            continue
        for match in kind.pattern.finditer(window):
            before = window[max(0, match.start() - _LOOK_BEHIND) : match.start()]
            after = window[match.end() : match.end() + 1]
            if kind.behind.search(before) and not _is_placeholder(match[1], before[-1:], after):
                return kind.name
    return ""


def _is_placeholder(secret: bytes, before: bytes, after: bytes) -> bool:
    """Tell whether it stands for a secret that the reader is to put there: ``xxxx``, one letter again and again,
    ``<…>``."""
    return len({*secret[:_ENOUGH]}) == 1 or _MANY_X.search(secret) is not None or (before == b"<" and after == b">")
