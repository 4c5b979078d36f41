"""Files that run code when they are loaded: known by name and first bytes, told by get and doctor, never loaded."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done

from mdl.weights.pickles import head_of, is_pickle


class Trap:
    """Loading one of these writes a file."""

    def __init__(self, at: str) -> None:
        self.at = at

    def __reduce__(self) -> tuple[object, tuple[str, bytes]]:
        return Path.write_bytes, (Path(self.at), b"!")  # type: ignore[return-value]


def zip_of(name: str, content: bytes | str) -> bytes:
    """A zip with one stored member."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


def numpy_file(descr: str, version: int = 1) -> bytes:
    """As numpy.save writes it: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""
    width = 2 if version == 1 else 4
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}"
    header += " " * (-(len(header) + 9 + width) % 64) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(width, "little") + header.encode() + b"\n'|O'"


def keras_config(layer: str) -> str:
    """The layers of a Keras model: a hundred dense ones and this one."""
    layers = [{"class_name": "Dense", "config": {"name": "Lambda"}} for _ in range(100)]
    return json.dumps({"config": {"layers": [*layers, {"class_name": layer, "config": {}}]}})


NAMES = ["a.pt", "b/c.PTH", "m.ckpt", "x.pkl", "y.joblib", "model_best.pth.tar", "asr.nemo", "Net.Pt.Tar"]
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
OBJECTS = ["'|O'", "'O'", "[('a', '<f4'), ('b', '|O')]", "[('b', '|O', (2,))]"]
NUMBERS = ["'<f4'", "'<U10'", "[('O', '<f4'), ('|O', '<i8')]"]
LAMBDA, DENSE = [keras_config("Lambda"), keras_config("__lambda__")], [keras_config("Dense")]
RUN_CODE = [
    *((name, b"") for name in NAMES),
    *(("weights.bin", pickle.dumps({"a": 1}, protocol=protocol)) for protocol in PROTOCOLS),
    ("pytorch_model.bin", zip_of("my model/data.pkl", b"x")),
    *(("e.npy", numpy_file(descr, version)) for descr in OBJECTS for version in (1, 2, 3)),
    *(("e.npz", zip_of("a.npy", numpy_file(descr))) for descr in OBJECTS),
    *(("net.keras", zip_of("config.json", config)) for config in LAMBDA),
    *(("net.h5", b"\x89HDF\r\n\x1a\n" + config.encode()) for config in LAMBDA),
]
RUN_NONE = [
    ("m.safetensors", b"\x10\0\0\0\0\0\0\0{"),
    ("a.gguf", b"GGUF"),
    ("c.json", b"{}"),
    ("n", b"\x80"),
    ("z", b"PK\x03\x04"),
    ("archive.zip", zip_of("config.json", "{}")),
    *(("e.npy", numpy_file(descr, version)) for descr in NUMBERS for version in (1, 2, 3)),
    *(("net.keras", zip_of("config.json", config)) for config in DENSE),
    *(("net.json", config.encode()) for config in LAMBDA),
]


CASES = [(*case, True) for case in RUN_CODE] + [(*case, False) for case in RUN_NONE]


@pytest.mark.fault(179)
@pytest.mark.parametrize(("name", "data", "runs_code"), CASES)
def test_files_that_run_code(name: str, data: bytes, runs_code: bool) -> None:
    """Pickles by name or first bytes, NumPy arrays of objects by their header, Keras models by a Lambda layer. Numbers
    and text are not called pickles, whatever the fields or layers in them are called."""
    assert is_pickle(name, data[: head_of(name)]) is runs_code


@pytest.mark.fault(179)
def test_get_and_doctor_say_so_and_load_nothing(tmp_path: Path, mdl: Inside) -> None:
    """Both name the file. What it would do when loaded does not happen; loading it here shows that it would."""
    trap = tmp_path / "sprung"
    payload = pickle.dumps(Trap(str(trap)))
    repo = Repo("org/m", {"pytorch_model.bin": zip_of("archive/data.pkl", payload), "config.json": b"{}"})
    with LoopbackHub([repo]) as hub:
        shell = Shell(tmp_path, hub.url)
        got, again = done(mdl(shell, "get", "hf:org/m")), done(mdl(shell, "get", "hf:org/m"))
        told = mdl(shell, "doctor", "--offline")
    assert "pytorch_model.bin: loading a pickle runs the code in it" in got.err
    assert "config.json: loading" not in got.err
    assert "pickle" not in again.err
    assert "pytorch_model.bin: loading a pickle" in told.out
    assert not trap.exists()
    pickle.loads(payload)
    assert trap.exists()
