"""Weights: the one table of the files and folders that hold models, and of other files that hold no text. Pure.

Whatever asks what a file is by its name, whether its bytes can be that, and whether it is whole, asks here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Literal

from mdl.values import value_class
from mdl.weights import end_records
from mdl.weights.end_records import ReadableFile, read_at
from mdl.weights.junk import why_junk
from mdl.weights.safetensors import LONGEST_HEADER, why_not_exact

BEGINNING = 2**16
"""The number of bytes from a file's beginning by which `Kind.can_begin_with` tells its format."""

_SHORTEST = 8
"""Bytes that a file must have before its beginning says anything."""

CanBegin = Callable[[bytes, int], bool]
"""Whether a file of some size may begin with these bytes, the first `BEGINNING` or more of them, or all."""
Lacks = Callable[[ReadableFile, int], "str | None"]
"""What an open file of some size lacks; None if nothing shows that anything is missing."""


def _starts(*magics: bytes, at: int = 0) -> CanBegin:
    def can_begin(beginning: bytes, _size: int) -> bool:
        return beginning.startswith(magics, at)

    return can_begin


def _anything(_beginning: bytes, _size: int) -> bool:
    return True


def _nothing_tells(_file: ReadableFile, _size: int) -> None:
    return None


def _by_beginning(magic: bytes, lacks: Lacks, otherwise: Lacks) -> Lacks:
    """``lacks`` for a file that begins with ``magic``, and ``otherwise`` for any other."""

    def lacks_by_beginning(file: ReadableFile, size: int) -> str | None:
        if read_at(file, 0, len(magic)) == magic:
            return lacks(file, size)
        return otherwise(file, size)

    return lacks_by_beginning


@value_class
class Kind:
    """One kind of file.

    ``suffixes`` are in lower case, with their dots. ``holds_weights`` is False for what is listed only because it holds
    no text. ``can_begin_with`` looks at the first bytes; where other bytes may stand there in a whole file too,
    ``begins_otherwise`` is True, and they count only for a download that nothing else vouches for. ``lacks`` looks for
    the end. ``loaded_with`` tells by what such a file is read; whether the optimizer is inside, its trainer's layout
    does. Where ``is_certain`` is False, files of other programs have the same suffix, and may be empty.
    ``is_media``: a picture, a recording or a video, which is none of a model's files.
    """

    name: str
    suffixes: tuple[str, ...]
    loaded_with: str = ""
    can_begin_with: CanBegin = _anything
    begins_otherwise: bool = False
    lacks: Lacks = _nothing_tells
    holds_weights: bool = True
    is_certain: bool = True
    is_media: bool = False

    def is_contradicted_by(self, beginning: bytes, size: int) -> bool:
        """Return whether no file of this kind and of so many bytes begins with these; one that was cut at once may."""
        return size > _SHORTEST and not self.begins_otherwise and not self.can_begin_with(beginning, size)

    def why_not_whole(self, file: ReadableFile, size: int) -> str | None:
        """Return why an open file of this kind, of ``size`` bytes, is not whole, as its own format tells; None if it
        is, or if its format has no end record.

        Nothing is unpickled, and a bounded part of the file is read. Raises ``OSError``.
        """
        if not size:
            return "it is empty" if self.is_certain else None
        beginning = read_at(file, 0, BEGINNING)
        if self.is_contradicted_by(beginning, size):
            return f"it is no {self.name} file: it begins with {ascii(beginning[:8])[1:]}"
        return self.lacks(file, size)


# How the beginnings and ends of some kinds are told


def _is_safetensors(beginning: bytes, _size: int) -> bool:
    """The length of a JSON header, and its first byte."""
    header = int.from_bytes(beginning[:8], "little")
    return 2 <= header <= LONGEST_HEADER and beginning[8:9] == b"{"


def _safetensors_lacks(file: ReadableFile, size: int) -> str | None:
    return why_not_exact(size, lambda count: read_at(file, 0, count))


def _is_torch(beginning: bytes, _size: int) -> bool:
    """A zip, a pickle of protocol 2 or later, or the tar of torch's first versions."""
    return beginning.startswith((end_records.ZIP_MEMBER, b"\x80")) or _is_tar(beginning, _size)


_torch_lacks = _by_beginning(end_records.ZIP_MEMBER, end_records.zip_lacks, _nothing_tells)
"""A bare pickle, which torch wrote before 1.6, has no end record."""
_distcp_lacks = _by_beginning(end_records.ZIP_MEMBER, end_records.last_zip_lacks, _nothing_tells)
"""Several torch files one behind the other."""


def _is_onnx(beginning: bytes, _size: int) -> bool:
    """A protobuf message: it begins with the tag of a field, which has a number and a wire type."""
    return not beginning or (beginning[0] >> 3 > 0 and beginning[0] & 7 in (0, 1, 2, 5))


def _is_hdf5(beginning: bytes, _size: int) -> bool:
    """The signature is at 0, or at 512, 1024 and so on, behind a block of the user's own."""
    starts = (0, *(2**power for power in range(9, 16)))
    return any(beginning.startswith(end_records.HDF5_SIGNATURE, at) for at in starts)


def is_tar_header(block: bytes) -> bool:
    """Return whether the first 512 bytes are the header of a tar's member: it has the sum of its own bytes, counted as
    if that field held blanks. Old programs took the bytes for signed ones."""
    header = block[:512]
    digits = header[148:156].strip(b"\0 ")
    if len(header) < 512 or not digits or digits.strip(b"01234567"):
        return False
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    negative = [byte for byte in header[:148] + header[156:] if byte > 127]
    return int(digits, 8) in (total, total - 256 * len(negative))


def _is_tar(beginning: bytes, _size: int) -> bool:
    """It begins with the header of a member; an empty tar is zeros."""
    is_empty = len(beginning) >= 512 and not any(beginning[:512])
    return is_empty or is_tar_header(beginning)


_GZIP = b"\x1f\x8b"


def _is_nemo(beginning: bytes, size: int) -> bool:
    return _is_tar(beginning, size) or beginning.startswith(_GZIP)


_nemo_lacks = _by_beginning(_GZIP, _nothing_tells, end_records.tar_lacks)


_ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00", b"MZ", b"\x7fELF", b"#!")
"""How a member, an empty archive, a part of a split one, or a self-extracting archive begins."""


_zip_lacks = _by_beginning(end_records.ZIP_MEMBER, end_records.zip_lacks, end_records.last_zip_lacks)
"""What stands behind a program, or is a part of several, is not where it would be alone."""
_is_zip = _starts(end_records.ZIP_MEMBER, b"PK\x05\x06")


# The table

CHECKPOINT = Kind("checkpoint", (".ckpt", ".cleanrl_model"), "torch", lacks=_torch_lacks)
"""What a trainer that gives no suffix writes too."""
_KINDS = (
    Kind("safetensors", (".safetensors", ".sft"), "safetensors", _is_safetensors, lacks=_safetensors_lacks),
    Kind("GGUF", (".gguf",), "llama.cpp", _starts(b"GGUF"), lacks=end_records.gguf_lacks),
    Kind("GGML", (".ggml",), "whisper.cpp", _starts(b"lmgg", b"tjgg", b"fmgg"), begins_otherwise=True),
    Kind(
        "torch",
        (".pt", ".pth", ".th", ".pt2", ".pt.tar", ".pth.tar", ".ckpt.tar", ".pdparams"),
        "torch",
        _is_torch,
        begins_otherwise=True,
        lacks=_torch_lacks,
    ),
    CHECKPOINT,
    Kind("binary", (".bin",), "torch", lacks=_torch_lacks, is_certain=False),
    Kind("HDF5", (".h5", ".hdf5"), "h5py", _is_hdf5, True, end_records.hdf5_lacks),
    Kind("HDF5", (".weights.h5",), "Keras", _is_hdf5, True, end_records.hdf5_lacks),
    Kind("Keras", (".keras",), "Keras", _is_zip, lacks=end_records.zip_lacks),
    Kind("npz", (".npz",), "numpy", _is_zip, lacks=end_records.zip_lacks),
    Kind("ONNX", (".onnx",), "onnxruntime", _is_onnx, begins_otherwise=True),
    Kind("ONNX data", (".onnx_data", ".onnx.data"), "onnxruntime"),
    Kind("Flax", (".msgpack",), "flax"),
    Kind("tch", (".ot",), "rust-bert", _is_torch, begins_otherwise=True),
    Kind("NeMo", (".nemo",), "nemo", _is_nemo, lacks=_nemo_lacks),
    Kind("TensorFlow Lite", (".tflite",), "tflite", _starts(b"TFL3", at=4)),
    Kind("protobuf", (".pb",), "TensorFlow"),
    Kind("TensorRT", (".engine", ".plan", ".trt"), "tensorrt"),
    Kind("distributed", (".distcp",), "torch.distributed.checkpoint", lacks=_distcp_lacks),
    Kind("Core ML", (".mlmodel",), "coremltools"),
    Kind("Paddle", (".pdiparams",), "paddle"),
    Kind("MXNet", (".params",), "mxnet"),
    Kind("Darknet", (".weights",), "darknet"),
    Kind("Caffe", (".caffemodel",), "caffe"),
    Kind("TorchServe", (".mar",), "torchserve", _is_zip, lacks=end_records.zip_lacks),
    Kind("NumPy array", (".npy",), can_begin_with=_starts(b"\x93NUMPY"), holds_weights=False),
    Kind(
        "zip",
        (".zip",),
        can_begin_with=_starts(*_ZIPS),
        lacks=_zip_lacks,
        holds_weights=False,
    ),
    Kind("tar", (".tar",), can_begin_with=_is_tar, lacks=end_records.tar_lacks, holds_weights=False),
    Kind("gzip", (".gz", ".tgz"), can_begin_with=_starts(_GZIP), holds_weights=False),
    Kind("bzip2", (".bz2", ".tbz2"), can_begin_with=_starts(b"BZh"), holds_weights=False),
    Kind("xz", (".xz", ".txz"), can_begin_with=_starts(b"\xfd7zXZ\0"), holds_weights=False),
    Kind("Zstandard", (".zst",), holds_weights=False),
    Kind("7z", (".7z",), can_begin_with=_starts(b"7z\xbc\xaf\x27\x1c"), holds_weights=False),
    Kind("rar", (".rar",), holds_weights=False),
    Kind("Parquet", (".parquet",), can_begin_with=_starts(b"PAR1", b"PARE"), holds_weights=False),
    Kind("Arrow", (".arrow", ".feather"), holds_weights=False),
    Kind("joblib", (".joblib",), holds_weights=False, is_certain=False),
    Kind("SentencePiece", (".spm",), holds_weights=False, is_certain=False),
    Kind("MediaPipe", (".task", ".litertlm"), holds_weights=False, is_certain=False),
    Kind("llamafile", (".llamafile",), holds_weights=False),
    Kind("DDUF", (".dduf",), can_begin_with=_is_zip, holds_weights=False),
    Kind("ExecuTorch", (".pte",), holds_weights=False),
    Kind("RKNN", (".rknn",), holds_weights=False),
    Kind("Paddle program", (".pdmodel",), holds_weights=False),
    Kind("TFRecord", (".tfrecord",), holds_weights=False),
    Kind("SQLite", (".sqlite", ".sqlite3"), can_begin_with=_starts(b"SQLite format 3\0"), holds_weights=False),
    Kind("Faiss", (".faiss",), holds_weights=False),
    Kind("LZ4", (".lz4",), holds_weights=False),
    Kind("wheel", (".whl",), can_begin_with=_is_zip, holds_weights=False),
    Kind(
        "picture",
        (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        holds_weights=False,
        is_certain=False,
        is_media=True,
    ),
    Kind(
        "recording",
        (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"),
        holds_weights=False,
        is_certain=False,
        is_media=True,
    ),
    Kind("video", (".mp4", ".mkv", ".webm", ".mov", ".avi"), holds_weights=False, is_certain=False, is_media=True),
)
"""One row a kind. The longest suffix that a name ends with decides."""
TENSORFLOW_SHARD = re.compile(r"(?P<stem>.+)\.data-(?P<part>[0-9]{5})-of-(?P<parts>[0-9]{5})")
_ANY_SHARD = re.compile(r"(?P<stem>.+)-(?:[0-9]{5}-of-[0-9]{5}|shard[0-9]+of[0-9]+).*")
_RANK = re.compile(r"rank_?[0-9]+")
"""The number of a process that writes its own part of the model."""
_SHARD = Kind("TensorFlow", (), "TensorFlow")
_BY_SUFFIX = {suffix: kind for kind in _KINDS for suffix in kind.suffixes}
_MOST_DOTS = max(suffix.count(".") for suffix in _BY_SUFFIX)
WEIGHT_SUFFIXES = tuple(suffix for suffix, kind in _BY_SUFFIX.items() if kind.holds_weights)
"""All suffixes of files that hold weights, in the order of the table."""
_NO_WEIGHTS = re.compile(r"training_args\.bin|.+\.(spec|mel|bert|emo|soft|hubert|f0)\.pt", re.IGNORECASE)
"""Names that have a suffix of weights and hold none: a pickle of settings, and features of recordings."""


@lru_cache(maxsize=1024)
def kind_of(name: str) -> Kind | None:
    """Return what a file of this name is, by its longest suffix; None if the table does not have it, or if it is junk.
    A path will do."""
    file_name = name.rpartition("/")[2]
    kind = _BY_SUFFIX.get(_suffix_of(file_name))
    if kind is None and TENSORFLOW_SHARD.fullmatch(file_name):
        kind = _SHARD
    if kind is None or why_junk(file_name):
        return None
    return kind


def _suffix_of(name: str) -> str:
    """Return the longest suffix of the table that a name ends with, in lower case; "" if there is none, or if the name
    is nothing else."""
    parts = name.lower().split(".")
    for dots in range(min(_MOST_DOTS, len(parts) - 1), 0, -1):
        suffix = "." + ".".join(parts[-dots:])
        if suffix in _BY_SUFFIX and len(suffix) < len(name):
            return suffix
    return ""


def weights_kind(name: str) -> Kind | None:
    """Return which kind of weights a file of this name may hold, be they a model's or an optimizer's; None if it holds
    none. A path will do."""
    kind = kind_of(name)
    if kind is None or not kind.holds_weights or _NO_WEIGHTS.fullmatch(name.rpartition("/")[2]):
        return None
    return kind


def is_weights(name: str) -> bool:
    """Return whether a file of this name may hold weights, be they a model's or an optimizer's. A path will do."""
    return weights_kind(name) is not None


def holds_no_text(name: str) -> bool:
    """Return whether no file of this name can be a text, so that a message in its place is an error."""
    return kind_of(name) is not None


def is_media(name: str) -> bool:
    """Return whether a file of this name is a picture, a recording or a video: none of a model's files."""
    kind = kind_of(name)
    return kind is not None and kind.is_media


def stem_of(name: str) -> str:
    """The name without its suffix: ``best`` of ``best.pth.tar``; the whole of it if the table has no such suffix."""
    suffix = _suffix_of(name)
    return name[: -len(suffix)] if suffix else name


def set_name(name: str) -> str:
    """The name that all files of one set of weights share: without a suffix, and without the number of a shard or of
    the process that wrote it. All files of a distributed checkpoint are one set."""
    if name.endswith(".distcp"):
        return ""
    shard = _ANY_SHARD.fullmatch(name) or TENSORFLOW_SHARD.fullmatch(name)
    return _RANK.sub("rank", shard["stem"] if shard else stem_of(name))


ArchiveKind = Literal["zip", "tar", "tar.gz"]
"""The archives that mdl unpacks, each by its usual suffix without the first dot."""


def archive_kind(beginning: bytes) -> ArchiveKind | None:
    """Return which kind of archive begins with these bytes; None if they do not tell. A zip may begin with anything."""
    if beginning.startswith(_GZIP):
        return "tar.gz"
    if _is_zip(beginning, len(beginning)):
        return "zip"
    return "tar" if is_tar_header(beginning) else None


# Folders that are models


@value_class
class FolderKind:
    """One kind of folder that is a model as a whole.

    It has all ``markers``, or any of ``one_of`` if that names some. ``weights`` are the files in it that hold weights
    beside those that `is_weights` knows.
    """

    name: str
    markers: frozenset[str] = frozenset()
    one_of: frozenset[str] = frozenset()
    weights: str = r"(?!)"

    def is_marked(self, names: Collection[str]) -> bool:
        """Return whether a folder with these names in it is of this kind."""
        has_one = not self.one_of or not self.one_of.isdisjoint(names)
        return has_one and self.markers.issubset(names)


_FOLDER_KINDS = (
    FolderKind("MLflow model", frozenset({"MLmodel"})),
    FolderKind("SavedModel", one_of=frozenset({"saved_model.pb", "saved_model.pbtxt"})),
    FolderKind("spaCy pipeline", frozenset({"meta.json", "config.cfg"}), weights="model"),
    FolderKind(
        "orbax checkpoint", one_of=frozenset({"_CHECKPOINT_METADATA", "manifest.ocdbt"}), weights=r"d/.+|[0-9a-f]{32}"
    ),
    FolderKind("diffusers pipeline", frozenset({"model_index.json"})),
    FolderKind("AutoGluon predictor", frozenset({"predictor.pkl", "learner.pkl"}), weights=r".+\.pkl"),
    FolderKind("RLlib checkpoint", frozenset({"rllib_checkpoint.json"}), weights=r".+\.(pkl|msgpack)"),
    FolderKind("Core ML package", frozenset({"Manifest.json", "Data"}), weights=r"model\.mlmodel|weight\.bin"),
)
ORBAX_STAGING = re.compile(r".+\.orbax-checkpoint-tmp(-[0-9]+)?")
"""The name of a folder that orbax renames when it is complete."""


def folder_kind_of(names: Collection[str]) -> FolderKind | None:
    """Return what a folder with these names directly in it is, if a marker of a format is among them."""
    return next((kind for kind in _FOLDER_KINDS if kind.is_marked(names)), None)
