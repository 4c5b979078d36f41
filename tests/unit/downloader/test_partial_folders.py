"""Which folders of partials are held by a process that works on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdl.disk.process import ProcessId
from mdl.downloader.partial_folders import is_held


def test_a_folder_that_its_process_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there when it is looked at, and gone when its files are listed: nobody holds it, and that is no error."""
    folder = tmp_path / "partials" / f"{'0' * 16}.{ProcessId.current()}"
    folder.mkdir(parents=True)

    def listed_too_late(path: Path, pattern: str) -> Iterator[Path]:
        shutil.rmtree(path)
        yield from path.iterdir()

    monkeypatch.setattr(Path, "rglob", listed_too_late)
    assert not is_held(folder)
