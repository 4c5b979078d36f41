"""Pickles: told by name and by first bytes, said by get and doctor, and never loaded."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub, Repo
from shell import Shell

from mdl.pickles import head_of, is_pickle


class Trap:
    """Loading one of these writes a file."""

    def __init__(self, at: str) -> None:
        self.at = at

    def __reduce__(self) -> tuple[object, tuple[str, bytes]]:
        return Path.write_bytes, (Path(self.at), b"!")  # type: ignore[return-value]


def torch_file(payload: bytes) -> bytes:
    """As torch.save writes it: a zip whose first member is the pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return made.getvalue()


@pytest.mark.fault(179)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_told_by_its_first_bytes(protocol: int) -> None:
    """Whatever its name, of every protocol that marks itself."""
    assert is_pickle("weights.bin", pickle.dumps({"a": 1}, protocol=protocol))


@pytest.mark.fault(179)
def test_torch_zip_is_told_by_its_first_member() -> None:
    """A zip is one only where its first member is the pickle."""
    assert is_pickle("pytorch_model.bin", torch_file(b"x"))
    with zipfile.ZipFile(other := io.BytesIO(), "w") as archive:
        archive.writestr("config.json", "{}")
    assert not is_pickle("archive.zip", other.getvalue())


@pytest.mark.fault(179)
@pytest.mark.parametrize(
    "name", ["a.pt", "b/c.PTH", "m.ckpt", "x.pkl", "y.joblib", "model_best.pth.tar", "asr.nemo", "Net.Pt.Tar"]
)
def test_pickle_is_told_by_its_name(name: str) -> None:
    """Also where its bytes say nothing."""
    assert is_pickle(name, b"")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("m.safetensors", b"\x10\0\0\0\0\0\0\0{"),
        ("a.gguf", b"GGUF"),
        ("c.json", b"{}"),
        ("n", b"\x80"),
        ("z", b"PK\x03\x04"),
    ],
)
def test_other_files_are_not(name: str, head: bytes) -> None:
    """What holds numbers or text is not called one."""
    assert not is_pickle(name, head)


def numpy_file(descr: str, version: int = 1) -> bytes:
    """As numpy.save writes it: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""
    width = 2 if version == 1 else 4
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}"
    header += " " * (-(len(header) + 9 + width) % 64) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(width, "little") + header.encode() + b"\n'|O'"


@pytest.mark.fault(179)
@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    ("descr", "is_one"),
    [
        ("'|O'", True),
        ("'O'", True),
        ("[('a', '<f4'), ('b', '|O')]", True),
        ("[('b', '|O', (2,))]", True),
        ("'<f4'", False),
        ("'<U10'", False),
        ("[('O', '<f4'), ('|O', '<i8')]", False),
    ],
)
def test_array_of_objects_is_told_by_its_header(version: int, descr: str, is_one: bool) -> None:
    """Its elements are pickled; an array of numbers or of text is none, whatever its fields are called."""
    data = numpy_file(descr, version)
    assert is_pickle("embeddings.npy", data) == is_one
    with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
        archive.writestr("a.npy", data)
    assert is_pickle("embeddings.npz", made.getvalue()) == is_one


@pytest.mark.fault(179)
@pytest.mark.parametrize(("layer", "is_one"), [("Lambda", True), ("__lambda__", True), ("Dense", False)])
def test_lambda_layer_is_told_by_its_name(layer: str, is_one: bool) -> None:
    """A Keras model holds code where it has a Lambda layer or an activation that is one; else it is no such file."""
    layers = [{"class_name": "Dense", "config": {"name": "Lambda"}} for _ in range(100)]
    config = json.dumps({"config": {"layers": [*layers, {"class_name": layer, "config": {}}]}})
    with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
    head = made.getvalue()[: head_of("net.keras")]
    assert is_pickle("net.keras", head) == is_one
    assert is_pickle("net.h5", b"\x89HDF\r\n\x1a\n" + config.encode()) == is_one
    assert not is_pickle("net.json", config.encode())


@pytest.mark.fault(179)
def test_get_and_doctor_say_so_and_load_nothing(tmp_path: Path) -> None:
    """Both name the file; what it would do when loaded does not happen, which loading it here shows it would."""
    trap = tmp_path / "sprung"
    payload = pickle.dumps(Trap(str(trap)))
    with LoopbackHub([Repo("org/m", {"pytorch_model.bin": torch_file(payload), "config.json": b"{}"})]) as hub:
        shell = Shell(tmp_path, hub.url)
        got, again = shell.run("get", "hf:org/m"), shell.run("get", "hf:org/m")
        told = shell.run("doctor", "--offline")
    assert got.code == 0
    assert "pytorch_model.bin: loading a pickle runs the code in it" in got.err
    assert "config.json: loading" not in got.err
    assert "pickle" not in again.err
    assert "pytorch_model.bin: loading a pickle" in told.out
    assert not trap.exists()
    pickle.loads(payload)
    assert trap.exists()
