"""Headers: what a zip's directory and its local headers say of each member, believed only if they agree. Pure."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from mdl.archive.member_names import TOP, member_path
from mdl.archive.zip_format import (
    CENTRAL,
    CENTRAL_HEAD,
    DEFERRED,
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTORS,
    FULL16,
    FULL32,
    LOCAL,
    LOCAL_HEAD,
    STORED,
    UTF8,
    ZIP64_EXTRA,
)
from mdl.errors import ProtocolError, Unsafe
from mdl.paths import RelPath, refuse_twin_folders, refuse_twins, shown

_ENCRYPTED = (1 << 0) | (1 << 6) | (1 << 13)
_PATCHED = 1 << 5
_HARMLESS = (1 << 1) | (1 << 2) | DEFERRED | UTF8
"""Flags: how hard the deflater tried, sizes behind the data, UTF-8."""
_UNICODE_PATH = 0x7075
_UNIX_LINK = 0x000D
_ASI_UNIX = 0x756E
_BELIEVED = (ZIP64_EXTRA, _UNICODE_PATH, _UNIX_LINK, _ASI_UNIX)
"""Extra fields by which a reader learns a member's size, name or kind."""
_UNIX_PLAIN = 12
"""Bytes of PKWARE's Unix field if no target of a link follows."""
_CODE_PAGE = (
    "Windows writes such names in the code page of its language: unpack it with 'unzip -O CODEPAGE', for example"
    " CP936 or CP932, and zip it again"
)
_EXTRA_HEAD = Struct("<2H")
_TWO_SIZES = Struct("<2Q")
_METHODS = dict(
    zip(
        (1, 6, 9, 12, 14, 20, 93, 95, 97, 98, 99),
        ("shrink", "implode", "deflate64", "bzip2", "lzma", "zstd", "zstd", "xz", "wavpack", "ppmd", "AES encryption"),
        strict=True,
    )
)


@dataclass(slots=True)
class ZipEntry:
    """One member as the directory lists it; ``path`` is `TOP` for the folder that is unpacked into.

    ``header_at`` is the offset of its local header; ``data_at`` the offset of
    its bytes, which is set once that header was read. ``packed`` and ``size`` are bytes, compressed and not."""

    raw: bytes
    path: RelPath
    is_folder: bool
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    header_at: int
    executable: bool = False
    data_at: int = -1

    @property
    def deferred(self) -> bool:
        return bool(self.flags & DEFERRED)

    @property
    def shown(self) -> str:
        return shown(self.raw.decode())[:200]


def parse_directory(data: bytes, count: int) -> list[ZipEntry]:
    """The members a directory lists. Raises `ProtocolError`, and `Unsafe` for what must not be unpacked."""
    members = []
    at = 0
    for _ in range(count):
        member, at = _parse_central(data, at)
        members.append(member)
    if at != len(data):
        raise ProtocolError("its directory holds more than its members")
    _refuse_collisions(members)
    return members


def check_local_header(head: bytes, member: ZipEntry) -> None:
    """Compare a member's local header with the directory. Raises `ProtocolError` if they differ."""
    signature, _, flags, method, _, _, crc, packed, size, names, extras = LOCAL_HEAD.unpack_from(head)
    if signature != LOCAL:
        raise ProtocolError("there is no local header at the offset that the directory gives", item=member.shown)
    raw = head[LOCAL_HEAD.size :][:names]
    extra = head[LOCAL_HEAD.size + names :][:extras]
    if extra:
        fields = _fields(extra, member.shown)
        wide = fields.get(ZIP64_EXTRA, b"")
        if wide:
            if len(wide) != 16 or (size, packed) != (FULL32, FULL32):
                raise ProtocolError("its 64-bit sizes are damaged", item=member.shown)
            size, packed = _TWO_SIZES.unpack(wide)
        _check_unicode_path(fields, raw, member.shown)
        _refuse_link_fields(fields, member.shown)
    sizes = (crc, packed, size)
    listed = (member.crc, member.packed, member.size)
    same = sizes == listed or (member.deferred and all(a in (0, b) for a, b in zip(sizes, listed, strict=True)))
    if raw != member.raw or method != member.method or flags != member.flags or not same:
        raise ProtocolError("its local header and the directory contradict each other", item=member.shown)


def check_descriptor(data: bytes, member: ZipEntry) -> None:
    """Compare a member's data descriptor with the directory. Raises `ProtocolError` if they differ."""
    facts = DESCRIPTORS[len(data)].unpack(data)
    if len(facts) == 4 and facts[0] != DESCRIPTOR:
        raise ProtocolError("its data descriptor is damaged", item=member.shown)
    if facts[-3:] != (member.crc, member.packed, member.size):
        raise ProtocolError("its data descriptor and the directory contradict each other", item=member.shown)


def _parse_central(data: bytes, at: int) -> tuple[ZipEntry, int]:
    if at + CENTRAL_HEAD.size > len(data) or not data.startswith(CENTRAL, at):
        raise ProtocolError("its directory is damaged")
    facts = CENTRAL_HEAD.unpack_from(data, at)
    flags, method, crc, packed, size = facts[5], facts[6], *facts[9:12]
    names, extras, comments, disk, _, external, begin = facts[12:]
    start = at + CENTRAL_HEAD.size
    stop = start + names + extras + comments
    if stop > len(data):
        raise ProtocolError("its directory is damaged")
    raw = data[start : start + names]
    extra = data[start + names : start + names + extras]
    text = _decoded(raw, flags)
    item = shown(text)[:200]
    fields = _fields(extra, item) if extra else {}
    size, packed, begin, disk = _widened(fields.get(ZIP64_EXTRA), (size, packed, begin, disk), item)
    if disk:
        raise Unsafe("an archive of several volumes is not unpacked", item=item)
    _check_unicode_path(fields, raw, item)
    is_folder = text.endswith("/")
    _refuse_kind(external >> 16, is_folder, size or crc, item)
    if fields:
        _refuse_link_fields(fields, item)
    _refuse_method(method, flags, packed, size, item)
    path = member_path(text)
    executable = bool(external >> 16 & stat.S_IXUSR)
    return ZipEntry(raw, path, is_folder, method, flags, crc, packed, size, begin, executable), stop


def _decoded(raw: bytes, flags: int) -> str:
    """A member's name. Readers disagree on a name that is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        item = shown(raw.decode("latin-1"))[:200]
        if flags & UTF8:
            raise Unsafe("name refused: it claims to be UTF-8 and is not", item=item) from None
        raise Unsafe("name refused: its encoding is not declared", item=item, hint=_CODE_PAGE) from None


def _fields(extra: bytes, item: str) -> dict[int, bytes]:
    """The extra fields by their number."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, length = _EXTRA_HEAD.unpack_from(extra, at)
        if at + 4 + length > len(extra):
            raise ProtocolError("its extra field is damaged", item=item)
        if number in fields and number in _BELIEVED:
            what = f"the extra field {number:#06x} appears twice; programs disagree on which one counts"
            raise ProtocolError(what, item=item)
        fields[number] = extra[at + 4 : at + 4 + length]
        at += 4 + length
    if any(extra[at:]):
        raise ProtocolError("its extra field is damaged", item=item)
    return fields


def _widened(wide: bytes | None, narrow: tuple[int, int, int, int], item: str) -> tuple[int, ...]:
    """Size, packed size, offset and disk, with the 64-bit value of each that is full."""
    size, packed, begin, disk = narrow
    full = (size == FULL32, packed == FULL32, begin == FULL32, disk == FULL16)
    if wide is None:
        if any(full):
            raise ProtocolError("its 64-bit sizes are missing", item=item)
        return narrow
    if len(wide) != 8 * sum(full[:3]) + 4 * full[3] or not any(full):
        raise ProtocolError("its 64-bit sizes are damaged", item=item)
    values = list(Struct("<" + "".join("QQQL"[n] for n in range(4) if full[n])).unpack(wide))
    return tuple(values.pop(0) if is_full else value for value, is_full in zip(narrow, full, strict=True))


def _check_unicode_path(fields: dict[int, bytes], raw: bytes, item: str) -> None:
    """Info-ZIP's second name for a member must be the same name."""
    second = fields.get(_UNICODE_PATH)
    if second is None:
        return
    is_same = len(second) >= 5 and second[0] == 1 and int.from_bytes(second[1:5], "little") == zlib.crc32(raw)
    if not is_same or second[5:] != raw:
        raise Unsafe("it has two different names", item=item)


def _refuse_link_fields(fields: dict[int, bytes], item: str) -> None:
    """Extra fields by which other readers would make a link: PKWARE's Unix field and Info-ZIP's ASi field."""
    mode = int.from_bytes(fields.get(_ASI_UNIX, b"")[4:6], "little")
    if len(fields.get(_UNIX_LINK, b"")) > _UNIX_PLAIN or stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Unsafe("a link is not unpacked", item=item)


def _refuse_kind(mode: int, is_folder: bool, content: int, item: str) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise Unsafe("a link is not unpacked", item=item)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Unsafe("neither a file nor a folder", item=item)
    if (kind == stat.S_IFDIR and not is_folder) or (kind == stat.S_IFREG and is_folder) or (is_folder and content):
        raise Unsafe("a folder and a file at once", item=item)


def _refuse_method(method: int, flags: int, packed: int, size: int, item: str) -> None:
    if flags & _ENCRYPTED:
        raise Unsafe("it is encrypted", item=item, hint="decrypt it with the tool that made it")
    if flags & ~_HARMLESS or flags & _PATCHED:
        raise Unsafe(f"unknown flags {flags:#06x}", item=item)
    if method not in (STORED, DEFLATED):
        name = _METHODS.get(method, f"method {method}")
        raise Unsafe(
            f"packed with {name}; mdl unpacks stored and deflated members", item=item, hint="unpack it with 7z"
        )
    if method == STORED and packed != size:
        raise ProtocolError("stored, but its two sizes differ", item=item)


def _refuse_collisions(members: list[ZipEntry]) -> None:
    """Refuse two members of one name, and two that would be one on some file system."""
    refuse_collisions([(member.path, member.is_folder) for member in members])


def refuse_collisions(members: Iterable[tuple[RelPath, bool]]) -> None:
    """Refuse two members of one name, and two that would be one on some file system. Of each, its path is given and
    whether it is a folder. Raises `Unsafe`."""
    names: set[str] = set()
    files: list[RelPath] = []
    folders: list[RelPath] = []
    for path, is_folder in members:
        if path.text in names:
            raise Unsafe("it is in the archive twice", item=shown(path.text or "./"))
        names.add(path.text)
        if is_folder:
            folders.append(path)
        else:
            files.append(path)
    refuse_twins(files)
    refuse_twin_folders(files, [path for path in folders if path != TOP])
