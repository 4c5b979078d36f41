"""The process of which `support.forked` makes copies: it has imported mdl, and has done nothing else yet.

A request is one message on the socket of file descriptor 3: words, environment and folder as JSON, and the three
streams. The copy is the child of a process that ends at once, so that the system gives it to the nearest ancestor that
takes orphans, which is the test. The answer is its process id.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys

import mdl.cli.main
from mdl.cli.commands import groups
from mdl.cli.typer_app import loaded

LATE = ("httpx", "mdl.client", "mdl.net.client", "mdl.net.transport", "mdl.ops.get", "mdl.jobs.records", "tomllib")
"""What the commands import when they run; never what reads its settings from the environment meanwhile."""
LONGEST = 200_000
COERCED = {"LC_CTYPE": os.environ["LC_CTYPE"]} if "LC_CTYPE" in os.environ else {}
"""What Python makes of a locale that is not set."""
PATH = [path for path in sys.path[1:] if path not in os.environ["PYTHONPATH"].split(os.pathsep)]
"""Where modules are for a Python that is started without any variable."""


def answer(connection: socket.socket) -> list[str] | None:
    """Make one copy. Returns the words in the copy itself, and nothing in the template."""
    data, streams, _, _ = socket.recv_fds(connection, LONGEST, 3)
    if not data:
        os._exit(0)
    request = json.loads(data)
    reading, writing = os.pipe()
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        connection.send(os.read(reading, 20))  # not before it has ended: until then the copy is its child
        for number in (reading, writing, *streams):
            os.close(number)
        return None
    copy = os.fork()
    if copy:
        os.write(writing, str(copy).encode())
        os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 64)
    if request["group"] is not None:
        os.setpgid(0, request["group"])
    os.environ.clear()
    os.environ.update({**COERCED, **request["environ"]})
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, whose children ignore it
    os.umask(request["umask"])
    os.chdir(request["folder"])
    sys.path = [request["folder"], *PATH]
    for number, mode in enumerate("rww"):
        renew(number, mode)
    return list(request["words"])


def renew(number: int, mode: str) -> None:
    """Give Python the stream of that number anew, as it opens it at its start."""
    name = ("stdin", "stdout", "stderr")[number]
    before = getattr(sys, name)
    is_terminal = os.isatty(number)
    stream = open(number, mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
    if mode == "w":
        stream.reconfigure(line_buffering=is_terminal or number == 2)
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def words_of_a_copy() -> list[str]:
    """Answer requests; returns in a copy only."""
    for name in LATE:
        __import__(name)
    for names in groups().values():
        for name in names:
            loaded(name)
    connection = socket.socket(fileno=3)
    while True:
        try:
            words = answer(connection)
        except KeyboardInterrupt:  # of the terminal, which tells the tests too
            os._exit(130)
        if words is not None:
            connection.detach()
            return words


if __name__ == "__main__":
    sys.argv = [os.path.join(os.path.dirname(mdl.__file__), "__main__.py"), *words_of_a_copy()]
    runpy.run_module("mdl", run_name="__main__", alter_sys=True)
