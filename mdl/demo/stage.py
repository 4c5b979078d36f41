"""Stage: where the demo plays: the real commands, run in its folder as a user runs them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mdl.errors import MdlError

_PRIVATE = ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Stage:
    """``folder`` is where the commands run; ``say`` gets what is told, line by line; ``more`` joins the environment.

    What the commands write to their stdout goes to the descriptor ``stdout``, or to this process's own.
    """

    def __init__(
        self, folder: Path, say: Callable[[str], None], more: Mapping[str, str], stdout: int | None = None
    ) -> None:
        self.folder, self.say, self._stdout = folder, say, stdout
        kept = {key: value for key, value in os.environ.items() if key not in _PRIVATE and not key.startswith("MDL_")}
        root = str(Path(__file__).parents[2])
        search = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH", "")]))
        self._environ = {**kept, "PYTHONPATH": search, **more}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Say a command and begin it."""
        self.say(f"$ mdl {shlex.join(words)}")
        command = [sys.executable, "-m", "mdl", *words]
        return subprocess.Popen(
            command, env=self._environ, stdin=subprocess.DEVNULL, stdout=self._stdout, cwd=self.folder
        )

    def run(self, *words: str) -> None:
        """Say a command and run it. Raises `MdlError` with its exit code where that is not 0."""
        code = self.start(*words).wait()
        if code:
            error = MdlError(f"mdl {words[0]} ended with {code}")
            error.exit_code = code if code > 0 else 1
            raise error
