"""``python -m mdl`` and the ``mdl`` command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from mdl.version import full_version

_NO_MEMORY = b"mdl: there is not enough memory\n  hint: end other programs, or raise the limit (ulimit -v)\n"


def main() -> None:
    """Run mdl. ``--version`` alone is answered before anything heavy is imported."""
    try:
        if sys.argv[1:] in (["--version"], ["-V"]):
            sys.exit(_say_version())
        gc.disable()  # imports leave no garbage: `run` puts it on once they are done
        if not sys.warnoptions:
            import warnings

            warnings.simplefilter("ignore")  # they show lines of source, for developers of mdl: see python -W
        from mdl.cli.main import run

        _end(run(_words()))
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:  # there was none left to import mdl, or to show the error either: these bytes need none
        with contextlib.suppress(OSError):
            os.write(2, _NO_MEMORY)
        os._exit(1)


def _words() -> list[str]:
    """The words of the command. A job in the background gets them from the command that started it."""
    if sys.argv[1:2] == ["--background"]:
        from mdl.jobs.processes import words_from_foreground

        with contextlib.suppress(OSError, ValueError):
            return words_from_foreground()
    return sys.argv[1:]


def _end(code: int) -> None:
    """End the process at once: to free every object first takes as long as a short command. A profiler or a coverage
    tool, which writes its results at the end, gets an ordinary exit."""
    if sys.gettrace() or sys.getprofile():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _say_version() -> int:
    if sys.stdout is None:
        return 0
    try:
        sys.stdout.write(f"mdl {full_version()}\n")
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = None
        if isinstance(error, BrokenPipeError):
            return 141
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write(f"mdl: stdout: {error.strerror}\n  hint: send the output elsewhere\n")
        return 7
    return 0


if __name__ == "__main__":
    main()
