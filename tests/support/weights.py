"""Small whole files of weights of every kind, written byte by byte as their own programs write them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable

PICKLE = b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01K\x01s."
"""A dictionary, as ``pickle.dumps(…, 2)`` writes it."""


def zipped(members: dict[str, bytes], *, alignment: int = 1, zip64: bool = False) -> bytes:
    """A zip of stored members."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            padding = -(data.tell() + 30 + len(name) + 4) % alignment
            if padding:
                info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding  # torch's own "FB" field
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(content)
    return data.getvalue()


def torch_file(size: int = 400, *, name: str = "archive") -> bytes:
    """What ``torch.save`` writes since 1.6, with ``size`` bytes of numbers."""
    members = {"data.pkl": PICKLE, "byteorder": b"little", "data/0": bytes(range(256)) * (size // 256 + 1)}
    members |= {"version": b"3\n", ".data/serialization_id": b"0" * 40}
    return zipped({f"{name}/{member}": content for member, content in members.items()}, alignment=64)


def safetensors_file(metadata: dict[str, str] | None = None, missing: int = 0) -> bytes:
    """One F32 tensor of 16 bytes, the last ``missing`` of them never written."""
    table: dict[str, object] = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    header = json.dumps({**table, "__metadata__": metadata} if metadata else table).encode()
    return len(header).to_bytes(8, "little") + header + b"\1" * (16 - missing)


def safetensors_of(payload: bytes, size: int) -> bytes:
    """A safetensors file of ``size`` bytes, whose tensor is the beginning of ``payload``."""
    longest = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    count = size - 8 - len(longest)
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return len(longest).to_bytes(8, "little") + header.ljust(len(longest)) + payload[:count]


def _gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_file(*, tensors: int = 2) -> bytes:
    """Metadata of several types, and tensors of 64 numbers as Q8_0."""
    values = [
        _gguf_text("general.architecture") + struct.pack("<I", 8) + _gguf_text("llama"),
        _gguf_text("general.alignment") + struct.pack("<II", 4, 64),
        _gguf_text("a.list") + struct.pack("<IIQ", 9, 8, 2) + _gguf_text("one") + _gguf_text("two"),
        _gguf_text("a.row") + struct.pack("<IIQ3f", 9, 6, 3, 1.0, 2.0, 3.0),
        _gguf_text("a.flag") + struct.pack("<I?", 7, True),
    ]
    infos = [_gguf_text(f"w{n}") + struct.pack("<IQIQ", 1, 64, 8, n * 128) for n in range(tensors)]
    header = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(values)) + b"".join((*values, *infos))
    if not tensors:
        return header
    return header + bytes(-len(header) % 64) + b"\1" * (128 * (tensors - 1) + 68)


def hdf5_file(version: int = 0, *, user_block: int = 0, length: int = 3000) -> bytes:
    """A superblock of this version, behind a user's block, and bytes up to the end that it names."""
    end = user_block + length
    far = b"\xff" * 8
    if version <= 1:
        block = bytes([version, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0) + b"\x20\0\0\0" * version
        block += struct.pack("<Q", user_block) + far + struct.pack("<Q", end) + far
    else:
        block = bytes([version, 8, 8, 0]) + struct.pack("<Q", user_block) + far + struct.pack("<Q", end) + far + b"crc!"
    head = bytes(user_block) + b"\x89HDF\r\n\x1a\n" + block
    return head + b"\1" * (end - len(head))


def tar_file(members: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def npy_array() -> bytes:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(16)


def stable_baselines_zip() -> bytes:
    names = ("policy.pth", "policy.optimizer.pth", "pytorch_variables.pth")
    return zipped(
        {"data": b"{}", **{name: torch_file(name=name[:-4]) for name in names}, "_stable_baselines3_version": b"2.3"}
    )


ONNX = b"\x08\x07\x12\x07pytorch\x1a\x032.1"
WHOLE: dict[str, Callable[[], bytes]] = {
    ".safetensors": safetensors_file,
    ".gguf": gguf_file,
    ".h5": hdf5_file,
    ".hdf5": lambda: hdf5_file(3),
    ".weights.h5": lambda: hdf5_file(2),
    ".keras": lambda: zipped({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": hdf5_file()}),
    ".npz": lambda: zipped({"w.npy": npy_array()}, zip64=True),
    ".nemo": lambda: tar_file({"./model_config.yaml": b"a: 1\n", "./model_weights.ckpt": torch_file()}),
    ".onnx": lambda: ONNX,
    ".tflite": lambda: b"\x1c\0\0\0TFL3" + bytes(200),
    ".zip": stable_baselines_zip,
}
"""A whole file of each suffix; of all others a torch file."""


def whole_file(name: str) -> bytes:
    """A whole file that may have this name."""
    fitting = [suffix for suffix in WHOLE if name.lower().endswith(suffix)]
    return WHOLE[max(fitting, key=len)]() if fitting else torch_file()
