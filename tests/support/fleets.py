"""What the tests of fleets share: a hub with a model large enough to be interrupted, and a machine that is the head."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from support.data import flip
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Shell, done, machine

SIZE = 60_000_000
REPO = Repo("org/model", {"config.json": b"{}", "model.safetensors": Generated(SIZE, "fleet")})
SLOWLY = SIZE / 1000
"""Bytes a second for each connection. Over 24 of them a node needs 40 seconds: no node of a busy machine is done before
the last one has begun."""
IN_FEW_PARTS = "--connections=4"
"""For a download that is stopped early: what is left is in few pieces, so that hardly a byte comes twice later."""
NODE_MDL = f"--mdl={sys.executable} -m mdl"
"""How a node calls its mdl."""


def sent(hub: LoopbackHub) -> int:
    """The bytes that the origin has sent."""
    return sum(request.body_bytes_sent for request in hub.requests)


def head_of(folder: Path, hub: LoopbackHub, **environ: str) -> Shell:
    """The machine on which the fleet is called, with a catalog that is locked."""
    shell = machine(folder, 'schema = 1\n[models.model]\nsource = "hf:org/model"\n', hub.url, **environ)
    done(shell.run("lock"))
    return shell


def arrived(folder: Path) -> int:
    """The bytes of a download that have come to the disk below a folder and are not whole yet."""
    sizes = 0
    for place, _, names in os.walk(folder):  # folders come and go meanwhile, over which rglob fails
        if "data" in names:
            with contextlib.suppress(FileNotFoundError):
                sizes += os.stat(os.path.join(place, "data")).st_blocks * 512
    return sizes


def damage(path: Path) -> None:
    """Change one byte of a file, and nothing else that shows."""
    path.chmod(0o644)
    flip(path, 1000)
