"""The demo's first half: a model is brought from a hub, the way is cut, gone on with, and the bytes verified."""

from __future__ import annotations

import json
import signal
import time

from mdl.demo.hub import Content, Generated, LoopbackHub, Repo
from mdl.demo.stage import Stage
from mdl.errors import MdlError

MODEL = "tiny-demo"
REPO = "demo/tiny"
_WEIGHTS = 48 * 2**20
_PATIENCE = 60.0


class Bringing:
    """Played on ``stage`` against ``hub``. Raises `MdlError` where something does not go as it should."""

    def __init__(self, stage: Stage, hub: LoopbackHub, models: str) -> None:
        self._stage, self._hub, self._models = stage, hub, models

    def play(self) -> None:
        say = self._stage.say
        say("\n1. What is there?")
        self._run("list")
        say("\n2. Get it, and be killed on the way (kill -9, as a power switch would).")
        self._interrupt()
        say("\n3. Run the same command again: it goes on where it was.")
        self._run("get", MODEL)
        say(f"   Served in all: {self._served() / _WEIGHTS:.2f} times the file's size.")
        say("\n4. Read it all again and hold it against its digests.")
        self._run("verify", MODEL)
        say("\n5. And once more: everything is here, so nobody is asked.")
        before = len(self._hub.requests)
        self._run("get", MODEL)
        asked = len(self._hub.requests) - before
        say(f"   Requests made: {asked}.")
        if asked:
            raise MdlError("a finished download asked the hub again")

    def _run(self, *words: str) -> None:
        self._stage.run(*words, "--to", self._models)

    def _interrupt(self) -> None:
        process = self._stage.start("get", MODEL, "--to", self._models)
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and self._served() < _WEIGHTS * 0.4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.returncode != -signal.SIGKILL:
            raise MdlError("the download was over before it could be killed")
        self._stage.say(f"   Killed after {self._served() / 1e6:.0f} of {_WEIGHTS / 1e6:.0f} MB were served.")

    def _served(self) -> int:
        return sum(request.body_bytes_sent for request in self._hub.requests if request.origin == "cdn")


def small_repo() -> Repo:
    """The one model of the demo's hub."""
    config = {"architectures": ["DemoModel"], "hidden_size": 64, "model_type": "demo"}
    vocab = "\n".join(f"word{n}" for n in range(500))
    files: dict[str, Content] = {
        "config.json": json.dumps(config, indent=2).encode(),
        "vocab.txt": vocab.encode(),
        "model.safetensors": Generated(_WEIGHTS, 7),
    }
    return Repo(REPO, files)
