"""Work: the script that every node runs."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

from mdl.plugins.fleet.work import Work


def test_a_node_without_room_for_the_catalog_says_so(tmp_path: Path) -> None:
    """If catalog and lock cannot be written, mdl is not asked: it would find fault with what was cut off."""
    work = Work("get", (), ["model"], "schema = 1", "version = 1", program=("echo", "asked"))
    done = subprocess.run(
        ["sh", "-s"],
        input=work.script(),
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),  # as on a full disk
        restore_signals=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (7, "", []), done.stderr
