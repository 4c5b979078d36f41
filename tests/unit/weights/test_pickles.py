"""Files that run code when they are loaded: told by get, show and verify, never loaded."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
from support.cases import each
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done

from mdl.weights.pickles import head_of, runs_code


class Trap:
    """Loading one of these writes a file."""

    def __init__(self, at: str) -> None:
        self.at = at

    def __reduce__(self) -> tuple[object, tuple[str, bytes]]:
        return Path.write_bytes, (Path(self.at), b"!")  # type: ignore[return-value]


def zip_of(*members: tuple[str, bytes | str], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these members."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return made.getvalue()


def tar_of(*members: tuple[str, bytes]) -> bytes:
    """A tar with these members."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def gzipped(data: bytes) -> bytes:
    """Compressed, the same at every time."""
    return gzip.compress(data, mtime=0)


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


VALUES = [{"a": 1}, [1.5, "x"], OrderedDict(a=(1, 2)), Path("x")]
NOISE = random.Random(1).randbytes(9_000)
COMPRESS = {"gz": gzipped, "bz2": bz2.compress, "xz": lzma.compress}
TEXTS = [
    *(b"0.1\n", b"2.0", b"(c) 2020 Somebody\nAll rights reserved.\n", b"config\nvalue\n", b"}", b"]\n", b"(((((("),
    *(b"(Very important)\nSecond line\n", b"[1, 2]", b"" * 9, b"# A model\n\nIt is good.\n" * 900),
]
NAMES = ["a.pt", "b/c.PTH", "m.ckpt", "x.pkl", "y.joblib", "model_best.pth.tar", "asr.nemo", "Net.Pt.Tar"]
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
OBJECTS = ["'|O'", "'O'", "[('a', '<f4'), ('b', '|O')]", "[('b', '|O', (2,))]"]
NUMBERS = ["'<f4'", "'<U10'", "[('O', '<f4'), ('|O', '<i8')]"]
LAMBDA, DENSE = [keras_config("Lambda"), keras_config("__lambda__")], [keras_config("Dense")]
RUN_CODE = [
    *((name, b"") for name in NAMES),
    *(("weights.bin", pickle.dumps({"a": 1}, protocol=protocol)) for protocol in PROTOCOLS),
    ("pytorch_model.bin", zip_of(("my model/data.pkl", b"x"))),
    *(("e.npy", numpy_file(descr, version)) for descr in OBJECTS for version in (1, 2, 3)),
    *(("e.npz", zip_of(("a.npy", numpy_file(descr)))) for descr in OBJECTS),
    *(("net.keras", zip_of(("config.json", config))) for config in LAMBDA),
    *(("net.h5", b"\x89HDF\r\n\x1a\n" + config.encode()) for config in LAMBDA),
]
RUN_CODE += [
    *(("weights.dat", pickle.dumps(value, protocol=protocol)) for value in VALUES for protocol in (0, 1)),
    ("weights.dat", pickle.dumps(["x" * 50] * 9_000, protocol=0)),
    *((f"a.dat.{kind}", compress(pickle.dumps({"a": 1}))) for kind, compress in COMPRESS.items()),
    ("deep.tgz", gzipped(tar_of(("readme.txt", b"hello" * 300), ("w.bin", pickle.dumps({"a": 1}))))),
    ("two.zip", zip_of(("config.json", "{}"), ("w.bin", pickle.dumps({"a": 1})))),
    ("small.zip", zip_of(("w.bin", pickle.dumps({"a": [0] * 500})), method=zipfile.ZIP_DEFLATED)),
    ("net.keras", zip_of(("config.json", keras_config("Lambda")), method=zipfile.ZIP_DEFLATED)),
    ("modeling_own.py", b"import os"),
    ("config.json", b'{"auto_map": {"AutoModel": "modeling_own.Model"}}'),
    ("model_index.json", b'{"custom_pipeline": ["own"]}'),
]
RUN_NONE = [
    ("m.safetensors", b"\x10\0\0\0\0\0\0\0{"),
    ("a.gguf", b"GGUF"),
    ("c.json", b"{}"),
    ("n", b"\x80"),
    ("z", b"PK\x03\x04"),
    ("archive.zip", zip_of(("config.json", "{}"))),
    *(("e.npy", numpy_file(descr, version)) for descr in NUMBERS for version in (1, 2, 3)),
    *(("net.keras", zip_of(("config.json", config))) for config in DENSE),
    *(("net.json", config.encode()) for config in LAMBDA),
]


RUN_NONE += [
    *(("text.txt", text) for text in TEXTS),
    ("text.txt.gz", gzipped(TEXTS[0])),
    ("torn.gz", gzipped(NOISE)[:300]),
    ("torn.xz", lzma.compress(NOISE)[:300]),
    ("data.tar", tar_of(("readme.txt", b"hello"), ("a.safetensors", b"\x10\0\0\0\0\0\0\0{"))),
    ("config.json", b'{"architectures": ["Bert"], "auto_map": null}'),
    ("noise.bin", bytes(range(255, -1, -1)) * 400),
]
CASES = [(*case, True) for case in RUN_CODE] + [(*case, False) for case in RUN_NONE]


@pytest.mark.fault(179)
@each(("name", "data", "expected"), CASES, ids=[f"{at}-{case[0]}" for at, case in enumerate(CASES)])
def test_files_that_run_code(name: str, data: bytes, expected: bool) -> None:
    """Pickles by name or first bytes, NumPy arrays of objects by their header, Keras models by a Lambda layer. Numbers
    and text are not called pickles, whatever the fields or layers in them are called."""
    assert runs_code(name, data[: head_of(name)]) is expected


@pytest.mark.fault(179)
def test_get_show_and_verify_say_so_and_load_nothing(tmp_path: Path, mdl: Inside) -> None:
    """get and show name the file, and so does a key of each file in JSON. What it would do when loaded does not happen;
    loading it here shows that it would."""
    trap = tmp_path / "sprung"
    payload = pickle.dumps(Trap(str(trap)))
    repo = Repo("org/m", {"pytorch_model.bin": zip_of(("archive/data.pkl", payload)), "config.json": b"{}"})
    with LoopbackHub([repo]) as hub:
        shell = Shell(tmp_path, hub.url)
        planned = done(mdl(shell, "get", "-n", "hf:org/m", "--json")).document
        got, again = done(mdl(shell, "get", "hf:org/m")), done(mdl(shell, "get", "hf:org/m"))
        report = done(mdl(shell, "get", "hf:org/m", "--json")).document
        checked, looked = (done(mdl(shell, word, "hf:org/m", "--json")).document for word in ("verify", "show"))
        shown = done(mdl(shell, "show", "hf:org/m"))
    assert "pytorch_model.bin: loading this can run code" in got.err
    assert "config.json: loading" not in got.err
    assert "loading" not in again.err
    assert "pytorch_model.bin: loading this can run code" in shown.err
    assert "does not judge it" in shown.err
    for document in (planned, report, checked["models"][0], looked):
        models = document.get("models") or [document]
        told_of = {file["path"]: file["runs_code"] for model in models for file in model["files"]}
        is_known = document is not planned
        assert told_of == {"pytorch_model.bin": True if is_known else None, "config.json": False if is_known else None}
    assert not trap.exists()
    pickle.loads(payload)
    assert trap.exists()
