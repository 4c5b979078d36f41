"""The demo: the real commands, run as a user runs them, against a hub on this machine alone."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mdl.demo.hub import Content, Generated, LoopbackHub, Repo
from mdl.errors import MdlError

MODEL = "tiny-demo"
_REPO = "demo/tiny"
_WEIGHTS = 48 * 2**20
_PACE = 12e6
_PATIENCE = 60.0

_CATALOG = """\
schema = 1

[models.{model}]
title = "A small generated model"
license = "apache-2.0"
tags = ["demo"]
source = "hf:{repo}"
revision = "{commit}"
"""


class Demo:
    """One run of the demo in ``folder``. ``say`` gets the story line by line."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say
        self._catalog = folder / "catalog.toml"
        self._models = folder / "models"

    def play(self) -> int:
        """The whole story; returns 0, or the exit code of the first command that did not do as it should."""
        repo = _repo()
        with LoopbackHub([repo], bytes_per_second=_PACE) as hub:
            self._catalog.write_text(_CATALOG.format(model=MODEL, repo=_REPO, commit=repo.commit))
            self._say(f"A hub is up on this machine alone, at {hub.url}; it hands weights out from {hub.cdn_url}.")
            self._say(f"Its one model is in {self._catalog}.")
            environ = self._environ(hub)
            try:
                self._listed(environ)
                self._interrupted(environ, hub)
                self._resumed(environ, hub)
                self._verified(environ, hub)
            except MdlError as error:
                self._say(f"This did not go as it should: {error.message}")
                return error.exit_code
        self._say(f"\nThe files are in {self._models / MODEL}; remove {self.folder} when you are done.")
        self._say("For a real model: mdl list, then mdl get NAME")
        return 0

    def _environ(self, hub: LoopbackHub) -> dict[str, str]:
        private = ("HF_TOKEN", "HF_HUB_OFFLINE", "MDL_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        kept = {key: value for key, value in os.environ.items() if key not in private}
        root = str(Path(__file__).parents[2])
        search = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH", "")]))
        return {**kept, "HF_ENDPOINT": hub.url, "PYTHONPATH": search}

    def _listed(self, environ: Mapping[str, str]) -> None:
        self._say("\n1. What is there?")
        self._run(environ, "list")

    def _interrupted(self, environ: Mapping[str, str], hub: LoopbackHub) -> None:
        self._say("\n2. Get it, and be killed on the way (kill -9, as a power switch would).")
        process = self._start(environ, "get", MODEL)
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and _served(hub) < _WEIGHTS * 0.4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.returncode != -signal.SIGKILL:
            raise MdlError("the download was over before it could be killed")
        self._say(f"   Killed after {_served(hub) / 1e6:.0f} of {_WEIGHTS / 1e6:.0f} MB were served.")

    def _resumed(self, environ: Mapping[str, str], hub: LoopbackHub) -> None:
        self._say("\n3. Run the same command again: it goes on where it was.")
        self._run(environ, "get", MODEL)
        self._say(f"   Served in all: {_served(hub) / _WEIGHTS:.2f} times the file's size.")

    def _verified(self, environ: Mapping[str, str], hub: LoopbackHub) -> None:
        self._say("\n4. Read it all again and hold it against its digests.")
        self._run(environ, "verify", MODEL)
        self._say("\n5. And once more: everything is here, so nobody is asked.")
        before = len(hub.requests)
        self._run(environ, "get", MODEL)
        asked = len(hub.requests) - before
        self._say(f"   Requests made: {asked}.")
        if asked:
            raise MdlError("a finished download asked the hub again")

    def _start(self, environ: Mapping[str, str], *words: str) -> subprocess.Popen[bytes]:
        arguments = [*words, "--to", str(self._models)]
        self._say(f"$ mdl {shlex.join(arguments)}")
        command = [sys.executable, "-m", "mdl", "--catalog", str(self._catalog), *arguments]
        return subprocess.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL, cwd=self.folder)

    def _run(self, environ: Mapping[str, str], *words: str) -> None:
        code = self._start(environ, *words).wait()
        if code:
            error = MdlError(f"mdl {words[0]} ended with {code}")
            error.exit_code = code if code > 0 else 1
            raise error


def _served(hub: LoopbackHub) -> int:
    return sum(request.body_bytes_sent for request in hub.requests if request.origin == "cdn")


def _repo() -> Repo:
    config = {"architectures": ["DemoModel"], "hidden_size": 64, "model_type": "demo"}
    vocab = "\n".join(f"word{n}" for n in range(500))
    files: dict[str, Content] = {
        "config.json": json.dumps(config, indent=2).encode(),
        "vocab.txt": vocab.encode(),
        "model.safetensors": Generated(_WEIGHTS, 7),
    }
    return Repo(_REPO, files)
