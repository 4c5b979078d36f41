"""Trial: one target on one input. It may return or raise `MdlError`, within its time; anything else is a finding."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import mdl
from mdl.errors import MdlError

CORPUS = Path(__file__).parents[1] / "corpus" / "fuzz"
_SECONDS = 2.0
"""What an input of a few kilobytes may take, with much room for a busy machine."""
_ROOMS = (str(Path(mdl.__file__).parent), str(Path(__file__).parent))
Target = Callable[[bytes], None]


def tried(target: Target, data: bytes) -> None:
    """Run ``target`` on ``data``. Raises whatever it should not have raised, and `TimeoutError`."""
    began = time.process_time()
    try:
        target(data)
    except MdlError as error:
        if error.exit_code == MdlError.exit_code:
            raise AssertionError(f"a fault in mdl: {error.message}") from error
    took = time.process_time() - began
    if took > _SECONDS:
        raise TimeoutError(f"{took:.1f} s of processor for {len(data)} bytes")


def name_of(error: BaseException) -> str:
    """What makes two findings the same: the kind of error and the line of mdl it came from."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(_ROOMS)]
    inner = [one for one in frames if one.filename.startswith(_ROOMS[0])] or frames
    at = inner[-1] if inner else None
    where = f"{Path(at.filename).name}:{at.lineno} {at.name}" if at else "nowhere"
    return f"{type(error).__name__} in {where}"


def keep(target: str, data: bytes) -> Path:
    """Put an input into the corpus, under a name made of its bytes."""
    place = CORPUS / target / hashlib.sha256(data).hexdigest()[:12]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


def kept(target: str) -> list[Path]:
    """The inputs of a target's corpus."""
    return sorted((CORPUS / target).glob("*"))
