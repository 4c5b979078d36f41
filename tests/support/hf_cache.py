"""The real huggingface_hub, and its cache, for tests of where files are taken from.

`Hf` is the hub's own client, in one process for many calls.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from support.data import files_below
from support.shell import Ran, Shell, environ

_CLIENT = """
import json, sys
from pathlib import Path
import huggingface_hub as hub
from huggingface_hub.utils import _shared_blobs as shared

def scan(cache_dir):
    found = hub.scan_cache_dir(cache_dir)
    repos = {
        f"{repo.repo_type}/{repo.repo_id}": {
            "refs": {name: revision.commit_hash for name, revision in repo.refs.items()},
            "files": {
                one.commit_hash: sorted(str(file.file_path.relative_to(one.snapshot_path)) for file in one.files)
                for one in repo.revisions
            },
        }
        for repo in found.repos
    }
    return {"repos": repos, "warnings": [str(one) for one in found.warnings], "size": found.size_on_disk}

def verify(endpoint, **words):
    found = hub.HfApi(endpoint=endpoint).verify_repo_checksums(token=False, **words)
    return [found.checked_count, len(found.mismatches), found.missing_paths, found.extra_paths]

def share(cache_dir, blob, size):
    return shared.publish_blob_to_shared_store(
        blob_path=blob, xet_hash="ab" * 32, cache_dir=cache_dir, expected_size=size
    )

known = {"snapshot": hub.snapshot_download, "file": hub.hf_hub_download, "scan": scan, "verify": verify, "share": share}
out, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    name, words = json.loads(line)
    try:
        answer = {"value": known[name](**words)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=out, flush=True)
"""


class HfError(Exception):
    """An error of the hub's client, in its words."""


class Hf:
    """The real huggingface_hub. ``hf("snapshot", repo_id=…)`` is one call of it; paths and values as in JSON."""

    def __init__(self, home: Path) -> None:
        extra = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLIENT],
            env=environ(home, **extra),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, name: str, **words: Any) -> Any:
        given = {key: str(value) if isinstance(value, Path) else value for key, value in words.items()}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([name, given]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise HfError(answer["error"])
        return answer["value"]

    def __enter__(self) -> Hf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


class Turning:
    """Content whose last byte is another one after `turn`, and the first one again after the next."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def turn(self) -> None:
        self._data = self._data[:-1] + bytes([self._data[-1] ^ 1])

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, span: slice) -> bytes:
        return self._data[span]

    def __repr__(self) -> str:
        return f"Turning({len(self)})"


def clones(folder: Path) -> bool:
    """Whether the file system there lets two files share their blocks."""
    with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
        one.write(bytes(2**16))
        one.flush()
        try:
            fcntl.ioctl(other, _FICLONE, one.fileno())
        except OSError:
            return False
        return True


_FICLONE = 0x40049409


def actions(ran: Ran) -> dict[str, str]:
    """The action of every file, by model and path."""
    return {f"{m['name']}/{f['path']}": f["action"] for m in ran.document["models"] for f in m["files"]}


def listing(root: Path) -> dict[str, tuple[int, ...] | str]:
    """Everything below a folder: kind, size, times and inode of each, and where links lead."""
    found: dict[str, tuple[int, ...] | str] = {}
    for at, folders, names in os.walk(root):
        for name in (*folders, *names, ""):
            path = Path(at, name)
            status = path.lstat()
            facts = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, status.st_nlink)
            found[str(path.relative_to(root))] = os.readlink(path) if path.is_symlink() else facts
    return found


def cache_of(shell: Shell) -> Path:
    """The hub's cache of that home."""
    return shell.home / ".cache" / "huggingface" / "hub"


def repo_of(shell: Shell) -> Path:
    return cache_of(shell) / "models--org--tiny"


def main_of(shell: Shell) -> str:
    """The commit that the cache has main at."""
    return (repo_of(shell) / "refs" / "main").read_text()


def offline(hf: Hf, shell: Shell, revision: str | None = None, **more: str) -> dict[str, bytes]:
    """The files of a snapshot as the hub's client finds them without a hub."""
    words = {"repo_id": "org/tiny", "revision": revision, "cache_dir": cache_of(shell), **more}
    return files_below(Path(hf("snapshot", local_files_only=True, **words)))


def scanned(hf: Hf, shell: Shell) -> dict[str, dict[str, dict[str, object]]]:
    """The repositories of the cache as ``hf cache ls`` sees them, without a warning."""
    found = hf("scan", cache_dir=cache_of(shell))
    assert found["warnings"] == []
    repos: dict[str, dict[str, dict[str, object]]] = found["repos"]
    return repos
