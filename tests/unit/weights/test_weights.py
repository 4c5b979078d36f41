"""The table of weights: what a file is by its name, and whether its own end record says that it is whole."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.weights import (
    ONNX,
    PICKLE,
    gguf_file,
    hdf5_file,
    npy_array,
    safetensors_file,
    stable_baselines_zip,
    tar_file,
    torch_file,
    zipped,
)

from mdl.weights.end_records import zip_names
from mdl.weights.known_formats import folder_kind_of, holds_no_text, is_weights, kind_of, stem_of

Make = Callable[[], bytes]
WITH_END: dict[str, tuple[str, Make]] = {
    "safetensors": ("a.safetensors", safetensors_file),
    "torch zip": ("a.pt", torch_file),
    "torch zip .pth": ("a.pth", torch_file),
    "torch zip .ckpt": ("a.ckpt", torch_file),
    "torch zip .bin": ("pytorch_model.bin", torch_file),
    "torch zip .th": ("a.th", torch_file),
    "torch zip .pth.tar": ("a.pth.tar", torch_file),
    "torch zip .pdparams": ("a.pdparams", torch_file),
    "torch zip in upper case": ("A.PT", torch_file),
    "distcp": ("__0_0.distcp", lambda: torch_file() + torch_file(900)),
    "gguf": ("a.gguf", gguf_file),
    "gguf of metadata alone": ("a.gguf", lambda: gguf_file(tensors=0)),
    "keras": ("a.keras", lambda: zipped({"metadata.json": b"{}", "model.weights.h5": hdf5_file()})),
    "npz": ("a.npz", lambda: zipped({"w.npy": npy_array()})),
    "npz with zip64": ("a.npz", lambda: zipped({"w.npy": npy_array()}, zip64=True)),
    "zip": ("a.zip", stable_baselines_zip),
    **{
        f"hdf5 v{version} at {at}": (name, lambda version=version, at=at: hdf5_file(version, user_block=at))  # type: ignore[misc]
        for version, at, name in (
            *((0, 0, "a.h5"), (1, 0, "a.hdf5"), (2, 0, "a.weights.h5"), (3, 0, "a.h5")),
            *((0, 512, "a.h5"), (3, 1024, "a.h5"), (2, 2048, "a.hdf5"), (0, 2**18, "a.h5")),
        )
    },
    "nemo": ("a.nemo", lambda: tar_file({"./model_weights.ckpt": torch_file(38_000)})),
    "tar": ("a.tar", lambda: tar_file({"a": b"text" * 9000})),
}
"""What has an end record: a name, and a whole file."""
WITHOUT_END: dict[str, tuple[str, bytes]] = {
    "old torch": ("a.pt", PICKLE),
    "old torch .bin": ("a.bin", PICKLE),
    "raw .bin": ("a.bin", b"\1\2\3"),
    "onnx": ("a.onnx", ONNX),
    "msgpack": ("a.msgpack", b"\x81\xa1a\x01"),
    "pb": ("saved_model.pb", b"\x08\x01"),
    "engine": ("a.engine", b"ftrt"),
    "plan": ("a.plan", b"ftrt"),
    "tflite": ("a.tflite", b"\x1c\0\0\0TFL3\0\0"),
    "an old nemo": ("a.nemo", tar_file({"a": b"x"}, "w:gz")),
    "a part of TensorFlow's": ("ckpt-1.data-00000-of-00001", b"\1"),
}
WRONG_MAGIC = {
    "keras": ("a.keras", hdf5_file()),
    "npz": ("a.npz", npy_array()),
    "h5": ("a.h5", zipped({"a": b"b"})),
    "weights.h5": ("a.weights.h5", b"\0" * 3000),
    "hdf5": ("a.hdf5", PICKLE),
    "gguf": ("a.gguf", b"GGML" + gguf_file()[4:]),
    "safetensors": ("a.safetensors", PICKLE * 10),
    "safetensors, a page": ("a.safetensors", b"<html>no</html>"),
    "nemo": ("a.nemo", zipped({"a": b"b"})),
    "tflite": ("a.tflite", b"\x1c\0\0\0TFL9\0\0"),
    "tar": ("a.tar", b"\1" * 10240),
}


def why(name: str, data: bytes) -> str | None:
    kind = kind_of(name)
    return kind.why_not_whole(io.BytesIO(data), len(data)) if kind else None


@each(("name", "make"), WITH_END.values(), ids=WITH_END)
def test_the_end_record_tells_whole_from_cut(name: str, make: Make) -> None:
    """A whole file is whole; one that lacks a byte, or its second half, or all of it, is not, and it is said why."""
    whole = make()
    assert why(name, whole) is None
    for cut in (whole[:-1], whole[: len(whole) // 2], whole[: len(whole) * 9 // 10], whole[:4]):
        assert why(name, cut), len(cut)
    assert bool(why(name, b"")) == (not name.endswith(".bin"))


@each(("name", "data"), WITHOUT_END.values(), ids=WITHOUT_END)
def test_without_an_end_record_a_file_must_not_be_empty(name: str, data: bytes) -> None:
    """Of a format without an end record nothing more can be said."""
    assert why(name, data) is None
    assert why(name, b"") == (None if name.endswith(".bin") else "it is empty")  # any program's file may be a .bin


@each(("name", "data"), WRONG_MAGIC.values(), ids=WRONG_MAGIC)
def test_another_format_under_the_name_is_not_whole(name: str, data: bytes) -> None:
    """The first bytes must not contradict the suffix."""
    assert why(name, data)


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "a second zip's end within a cut one": ("a.pt", torch_file()[:-60] + zipped({"a": b"b"})),
        "a member that is a zip": ("a.pt", zipped({"x.zip": zipped({"a": b"b"}), "y": b"z" * 500})[:-200]),
        "never closed": ("a.h5", hdf5_file() + b"more"),
        "something behind the last tensor": ("a.safetensors", safetensors_file() + b"\0"),
        "a header that is no JSON": ("a.safetensors", b"\x08\0\0\0\0\0\0\0{notjson" + bytes(90)),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_whole_in_other_ways(name: str, data: tuple[str, bytes]) -> None:
    """A directory must be where its end record says, and a file must end where its header says."""
    assert why(*data), name


@given(
    st.sampled_from(["a.pt", "a.gguf", "a.h5", "a.keras", "a.nemo", "a.safetensors", "a.tflite"]),
    st.binary(max_size=700),
)
def test_any_bytes_are_judged(name: str, data: bytes) -> None:
    """Whatever a file holds, and wherever a whole one is damaged, an answer comes."""
    why(name, data)
    for make in (torch_file, gguf_file, hdf5_file):
        whole = bytearray(make())
        whole[4 : 4 + len(data)] = data
        why(name, bytes(whole))


def test_a_comment_behind_the_end_record_is_no_damage() -> None:
    """The end record may have a comment, up to 65,535 bytes long."""
    whole = zipped({"a": b"b"})
    commented = whole[:-2] + (65535).to_bytes(2, "little") + b"c" * 65535
    assert why("a.pt", commented) is None
    assert why("a.pt", commented[:-1])


def test_names_tell_kinds() -> None:
    """The longest suffix decides, in any case; a hidden file's name is no suffix, and a twin of macOS's no weights."""
    for name in ("a.pth.tar", "m.WEIGHTS.h5", "x.safetensors", "ckpt.data-00001-of-00002", "a.pdparams", "deep/a.th"):
        assert is_weights(name), name
    for name in (".pt", "a.tar", "a.zip", "a.json", "._a.safetensors", ".nfs000123.pt", "training_args.bin", "pt"):
        assert not is_weights(name), name
    kinds = [kind_of("a.weights.h5"), kind_of("a.h5")]
    assert [kind.loaded_with for kind in kinds if kind] == ["Keras", "h5py"]
    for name in ("a.tgz", "a.npy", "a.PNG", "a/b.wav", "a.mp4", "source.spm", "a.joblib"):
        assert holds_no_text(name), name
    for name in ("a.txt", "plot.svg", "a.pkl", "png", ".png"):
        assert not holds_no_text(name), name
    assert (stem_of("best.pth.tar"), stem_of("epoch=1-step=2.ckpt"), stem_of("v1.2"), stem_of(".pt")) == (
        *("best", "epoch=1-step=2", "v1.2", ".pt"),
    )


def test_folders_are_told_by_their_markers() -> None:
    """A format's own marker makes a folder one model."""
    kinds = {
        "SavedModel": {"saved_model.pb", "variables"},
        "spaCy pipeline": {"meta.json", "config.cfg", "ner"},
        "orbax checkpoint": {"_CHECKPOINT_METADATA", "d"},
        "MLflow model": {"MLmodel", "data", "saved_model.pb"},
        "diffusers pipeline": {"model_index.json", "unet"},
    }
    for name, names in kinds.items():
        kind = folder_kind_of(names)
        assert kind
        assert kind.name == name
    assert folder_kind_of({"meta.json", "a.pt"}) is None


def test_a_zip_of_stable_baselines_is_told_by_its_names() -> None:
    """Its directory names the policy."""
    data = stable_baselines_zip()
    assert {"data", "policy.pth"} <= zip_names(io.BytesIO(data), len(data))
    assert zip_names(io.BytesIO(data[:-5]), len(data) - 5) == frozenset()
