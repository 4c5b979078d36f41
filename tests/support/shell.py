"""mdl as its users run it: a process of its own, with an environment made for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.schemas import document_of, events_of


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return document_of(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        return events_of(self.err)


@dataclass(frozen=True)
class Shell:
    """A home of one's own; nothing of the tester's environment gets in."""

    home: Path
    endpoint: str = "http://127.0.0.1:9"
    extra: Mapping[str, str] | None = None

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HF_ENDPOINT": self.endpoint,
            "MDL_HOME": str(self.models),
            **(self.extra or {}),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "mdl", *words]

    def run(self, *words: str, prefix: tuple[str, ...] = ()) -> Ran:
        """Run it to its end. What it says as JSON is held against the schemas, whether or not it is looked at."""
        done = subprocess.run(
            [*prefix, *self.command(*words)],
            env=self.environ,
            cwd=self.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=100,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert "--json" not in words or not ran.out or ran.document
        assert ("--progress", "json") not in pairwise(words) or ran.events
        return ran
