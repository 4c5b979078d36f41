"""A new source is one file and one line of registration: everything else of mdl then works with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.faulty_server import FaultyServer

import mdl
from mdl.sources import SOURCES, parse

WEIGHTS, CONFIG = b"w" * 50_000, b'{"a": 1}'


def index(**files: bytes) -> bytes:
    rows = [
        {"path": name.replace("_", "."), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    return json.dumps({"version": 1, "files": rows}).encode()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A shelf with two files, registered by one line, and the user's home."""
    monkeypatch.setitem(SOURCES, "shelf", "support.shelf_source")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    pages = {
        "/tiny/index.json": faults.honest(index(config_json=CONFIG, weights_bin=WEIGHTS)),
        "/tiny/config.json": faults.honest(CONFIG),
        "/tiny/weights.bin": faults.honest(WEIGHTS),
    }
    with FaultyServer(faults.routes(pages)) as server:
        yield f"shelf://{server.url.removeprefix('http://')}/tiny"


def test_as_a_target(shelf: str) -> None:
    """A reference of the new scheme is a target like any other: planned, fetched, verified, kept, known offline."""
    assert str(parse(shelf)) == shelf
    assert mdl.plan(shelf, home="m").bytes_to_fetch == len(WEIGHTS) + len(CONFIG)
    path = mdl.get(shelf, home="m")
    assert (path.name, (path / "weights.bin").read_bytes() == WEIGHTS) == ("shelf--tiny", True)
    again = mdl.download(shelf, home="m", offline=True)
    assert [(file.action, file.verified) for file in again.models[0].files] == [("kept", "sha256")] * 2


def test_in_a_catalog(shelf: str) -> None:
    """A catalog names it as a source and as one file's URL; the lock holds its references, and is held to."""
    Path("catalog.toml").write_text(
        f'schema = 1\n[models.all]\nsource = "{shelf}"\ninclude = ["*.bin"]\n'
        f'[models.one]\n[[models.one.files]]\nurl = "{shelf}/config.json"\n'
    )
    client = mdl.Client(home="m")
    assert client.lock().error is None
    locked = Path("mdl.lock").read_text()
    assert f'source = "{shelf}"\n' in locked
    assert 'path = "weights.bin"' in locked
    report = client.download(["all", "one"])
    assert report.error is None
    assert {(model.name, file.path) for model in report.models for file in model.files} == {
        ("all", "weights.bin"),
        ("one", "config.json"),
    }
    assert mdl.download(["all", "one"], home="other", locked=True).error is None
    (model, status), *_ = client.statuses(["all"])
    assert (model.source_text, status.status) == (shelf, "present")
    assert mdl.verify(home="m").error is None


def test_without_the_line(shelf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unregistered, the scheme is refused before any request."""
    monkeypatch.delitem(SOURCES, "shelf")
    with pytest.raises(mdl.UsageError, match="only http://, https://, hf:, s3://"):
        mdl.get(shelf, home="m")
