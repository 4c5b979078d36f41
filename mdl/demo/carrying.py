"""The demo's second half: a trained run is looked at, packed, put into service, replaced, and rolled back."""

from __future__ import annotations

import os
from pathlib import Path

from mdl.demo.stage import Stage
from mdl.demo.training import write_run
from mdl.errors import MdlError

_RUN, _SERVICE = "run", "service"


class Carrying:
    """Played on ``stage``. Raises `MdlError` where something does not go as it should."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._service = stage.folder / _SERVICE

    def play(self) -> None:
        say, run = self._stage.say, self._stage.run
        write_run(self._stage.folder / _RUN)
        say("\n6. A training has left a run here. What does it hold?")
        run("checkpoints", _RUN)
        say("\n7. Pack the best of it, without what only the trainer needs.")
        run("pack", _RUN, "--checkpoint", "best", "--inference-only", "-o", "best.zip")
        say("\n8. Put it into service: unpacked beside, checked, then one link is switched.")
        run("unpack", "best.zip", "--to", _SERVICE, "--release")
        best = self._serving()
        say("\n9. The latest goes into service; what is the same in both is not stored twice.")
        run("pack", _RUN, "--checkpoint", "latest", "--inference-only", "-o", "latest.zip")
        run("unpack", "latest.zip", "--to", _SERVICE, "--release")
        if self._serving() == best:
            raise MdlError("the second release is not served")
        say("\n10. It was no good: back to the one before, with one switch.")
        run("rollback", _SERVICE)
        if self._serving() != best:
            raise MdlError("the rollback did not bring the first release back")

    def _serving(self) -> str:
        target = os.readlink(self._service / "current")
        self._stage.say(f"   {_SERVICE}/current -> {target}")
        return Path(target).name
