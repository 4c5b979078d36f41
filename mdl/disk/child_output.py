"""The output of programs that mdl starts: read while they run, never more than their bounds, and Ctrl-C is heard."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mdl.bounds import LARGEST_CHILD_OUTPUT, LARGEST_NOTE, LARGEST_SMALL_FILE
from mdl.cancel import CancelToken
from mdl.values import value_class

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 2**16
_MOST_BLOCKS = 16
"""More than a pipe can hold."""
_LOOK_SECONDS = 0.05
"""How often a program that says nothing is looked at, and whether mdl is to stop."""
_GRACE_SECONDS = 5.0
"""How long a program that is ended may take before it is killed."""


def end_program(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a program if it still runs, by force after ``grace`` seconds."""
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Child:
    """A program that runs, and what it has said so far. What it says is read by `read_ready`."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        most: int = LARGEST_CHILD_OUTPUT,
        folder: Path | None = None,
        new_session: bool = False,
    ) -> None:
        """Start it. At most ``most`` bytes of its standard output are taken. Raises `OSError` if it cannot be
        started."""
        self.process = subprocess.Popen(
            words,
            env=environ,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            start_new_session=new_session,
        )
        self.began = time.monotonic()
        self.out = bytearray()
        self.err = bytearray()
        self.is_too_long = False
        """It said more than it may, and was ended."""
        self._most = most
        assert self.process.stdout
        assert self.process.stderr
        self._pipes = {self.process.stdout.fileno(): self.out, self.process.stderr.fileno(): self.err}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)

    @property
    def pipes(self) -> Iterable[int]:
        """The descriptors of the outputs that it has not closed."""
        return tuple(self._pipes)

    def take(self) -> None:
        """Take what it has said since, without waiting for more. One that says too much is ended."""
        for pipe, said in tuple(self._pipes.items()):
            with contextlib.suppress(BlockingIOError):
                for _ in range(_MOST_BLOCKS):  # others are to be heard too
                    block = os.read(pipe, _BLOCK)
                    if not block:
                        del self._pipes[pipe]
                        break
                    self._keep(said, block)
                    if self.is_too_long:
                        return

    def _keep(self, said: bytearray, block: bytes) -> None:
        said += block
        if said is self.err:
            del said[:-LARGEST_NOTE]
        elif len(said) > self._most:
            del said[self._most :]
            self.is_too_long = True
            self._pipes.clear()
            self.end()

    def is_over(self) -> bool:
        """Return whether it has ended. What it said last is taken then; what its own children may say later is not."""
        if self.process.poll() is None:
            return False
        self.take()
        return True

    def end(self) -> None:
        """End it if it still runs, by force if it does not listen, and close its pipes."""
        end_program(self.process, _GRACE_SECONDS)
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file:
                with contextlib.suppress(OSError):
                    file.close()


def read_ready(children: Iterable[Child], seconds: float, cancel: CancelToken) -> None:
    """Take what any of the ``children`` says, and wait ``seconds`` for it at most. Raises as `CancelToken.check`."""
    cancel.check()
    with selectors.DefaultSelector() as selector:
        for child in children:
            for pipe in child.pipes:
                selector.register(pipe, selectors.EVENT_READ, child)
        if not selector.get_map():
            cancel.wait(seconds)
            return
        ready = {key.data for key, _ in selector.select(seconds)}
    for child in ready:
        child.take()
    cancel.check()


@value_class
class Said:
    """What a program said, and its exit status. ``is_too_long`` if it was ended for saying more than it may;
    ``is_late`` if it was ended because its time was over."""

    code: int
    out: str
    err: str
    is_too_long: bool = False
    is_late: bool = False


def output_of(
    words: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    cancel: CancelToken | None = None,
    seconds: float | None = None,
    most: int = LARGEST_SMALL_FILE,
) -> Said:
    """Run a program, which gets no input, to its end, for ``seconds`` at most. Raises `OSError` if it cannot be
    started, and as `CancelToken.check`; it is ended then."""
    cancel = cancel or CancelToken()
    child = Child(words, environ=environ, most=most)
    is_late = False
    try:
        while not child.is_over() and not is_late:
            read_ready([child], _LOOK_SECONDS, cancel)
            is_late = seconds is not None and time.monotonic() - child.began > seconds
    finally:
        child.end()
    out, err = (bytes(said).decode(errors="replace") for said in (child.out, child.err))
    return Said(child.process.returncode, out, err, child.is_too_long, is_late)
