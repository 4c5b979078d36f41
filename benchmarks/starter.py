"""Run one command, its output thrown away, and print what it took: wall, user and system seconds, the most memory that
it had in bytes, and its exit code.

    python -I -S benchmarks/starter.py COMMAND [ARGUMENT]...

Linux counts towards the peak memory of a process what its parent had when it started it (getrusage(2), ru_maxrss).
This parent has little. A benchmark may have all the files that it serves.
"""

import os
import sys
import time

_NOWHERE = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes; Linux tells KiB."""


def main() -> None:
    began = time.monotonic()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=_NOWHERE)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - began
    print(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * _UNIT, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
