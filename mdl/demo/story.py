"""The demo: both stories, on this machine alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mdl.demo.bringing import MODEL, REPO, Bringing, small_repo
from mdl.demo.carrying import Carrying
from mdl.demo.hub import LoopbackHub
from mdl.demo.stage import Stage
from mdl.errors import MdlError

_PACE = 12e6
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
    """One run of the demo in ``folder``. ``say`` gets the story line by line; ``stdout`` as of `Stage`."""

    def __init__(self, folder: Path, say: Callable[[str], None], stdout: int | None = None) -> None:
        self.folder, self._say, self._stdout = folder, say, stdout
        self._catalog = folder / "catalog.toml"
        self._models = folder / "models"

    def play(self) -> int:
        """The whole story; returns 0, or the exit code of the first command that did not do as it should."""
        repo = small_repo()
        with LoopbackHub([repo], bytes_per_second=_PACE) as hub:
            self._catalog.write_text(_CATALOG.format(model=MODEL, repo=REPO, commit=repo.commit))
            self._say(f"A hub is up on this machine alone, at {hub.url}; it hands weights out from {hub.cdn_url}.")
            self._say(f"Its one model is in {self._catalog}.")
            environ = {"HF_ENDPOINT": hub.url, "MDL_CATALOG": str(self._catalog)}
            stage = Stage(self.folder, self._say, environ, self._stdout)
            try:
                Bringing(stage, hub, str(self._models)).play()
                Carrying(stage).play()
            except MdlError as error:
                self._say(f"This did not go as it should: {error.message}")
                return error.exit_code
        self._say(f"\nEverything is in {self.folder}; remove it when you are done.")
        self._say("For a real model: mdl list, then mdl get NAME. For a run of yours: mdl checkpoints RUN.")
        return 0
