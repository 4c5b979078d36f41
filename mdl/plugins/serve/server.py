"""The server: a socket, uvicorn in a thread, and the block in which it answers."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.cancel import CancelToken
from mdl.disk import publish
from mdl.disk.process import allow_descriptors
from mdl.errors import MdlError, UsageError, storage_trouble
from mdl.extras import require
from mdl.plugins.serve.options import TOKEN_VARIABLE, ServeOptions
from mdl.redact import Secrets
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.client import Client
    from mdl.plugins.serve.traffic import Traffic

_GRACE_SECONDS = 3
"""How long answers that are on their way may take when the server is to stop."""
_START_SECONDS = 30.0
_IDLE_SECONDS = 15
"""How long a connection is kept for the next request: longer than clients keep theirs (httpx: 5 seconds), so that none
sends a request into a connection that is just closed."""
_WHEN_FULL = "free some space, and start the server again"
MOST_CLIENTS = 4000
"""Connections at a time; of one address half as many."""
_BACKLOG = 1024


def check_installed() -> None:
    """Raises `UsageError` if the extra ``serve`` is not installed."""
    require("serve", "starlette", "uvicorn", why="mdl serve needs starlette and uvicorn")


def listen(host: str, port: int) -> socket.socket:
    """An open socket there; port 0 is any that is free. Raises `UsageError` if nobody can listen there.

    Its connections send at once (TCP_NODELAY): else the body of each small answer waits 40 ms until the client has
    acknowledged its head. asyncio sees to that only for sockets whose protocol is named, and these have none.
    """
    host = host.strip("[]")
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.create_server(address, family=family, backlog=_BACKLOG)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except OSError as error:
        hint = "name another with --host and --port; --port 0 takes any that is free"
        if error.errno == errno.EADDRINUSE:
            hint = f"another program listens there, perhaps another 'mdl serve'; {hint}"
        is_of_name = isinstance(error, socket.gaierror)
        why = error.strerror if is_of_name or not error.errno else os.strerror(error.errno)  # Python adds the address
        raise UsageError(f"cannot listen: {why}", item=where, hint=hint) from error


@value_class
class Serving:
    """A server that answers at ``url``."""

    url: str
    traffic: Traffic
    _thread: threading.Thread

    @property
    def facts(self) -> dict[str, Any]:
        """What it has answered so far."""
        return {"url": self.url, "requests": self.traffic.requests.total(), "bytes_sent": self.traffic.bytes_sent}

    def wait(self, cancel: CancelToken) -> None:
        """Wait until ``cancel`` is set, and raise what it was set for. Raises `MdlError` if the server has ended."""
        while self._thread.is_alive():
            cancel.wait(1.0)
        raise MdlError("the server has ended by itself", item=self.url)


@contextlib.contextmanager
def serving(
    client: Callable[[], Client], options: ServeOptions, *, secrets: Secrets, warn: Callable[[str], None]
) -> Iterator[Serving]:
    """Serve until the block ends: then answers that are on their way have three seconds.

    ``client`` makes a client with the settings as they are at that moment. ``secrets`` are kept out of the log, and
    ``warn`` is told what a user should know. Raises `UsageError`, `StorageError`.
    """
    check_installed()
    from mdl.jobs.log import Log, no_log
    from mdl.net.credentials import is_loopback
    from mdl.plugins.serve.app import application
    from mdl.plugins.serve.traffic import Traffic

    allow_descriptors(4 * MOST_CLIENTS)  # each client takes two
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listen(options.host, options.port))
        address, port = sock.getsockname()[:2]
        url = _url(address, port)
        if not is_loopback(address):
            if options.token is None:
                why = "a server that other machines can reach needs a token"
                raise UsageError(why, item=f"--host {options.host}", hint=f"--token-env NAME, or set {TOKEN_VARIABLE}")
            warn("the token crosses the network in the clear: use a network that you trust, or a TLS proxy before mdl")
        log = None
        if options.log_file is not None:
            try:
                log = stack.enter_context(contextlib.closing(Log(options.log_file)))
            except OSError as error:
                warn(no_log(options.log_file, error))
        traffic = Traffic(log, secrets, lambda error: warn(f"no request log is kept: {error.strerror}"))
        app = application(client, options, traffic, warn, is_local=is_loopback(address))
        thread = stack.enter_context(_answering(app, sock))
        if options.ready_file is not None:
            stack.enter_context(_ready(options.ready_file, url))
        yield Serving(url, traffic, thread)


def _url(address: str, port: int) -> str:
    """Where a server is that listens at ``address``: by the machine's name if that is every address."""
    name = socket.gethostname() if address in ("0.0.0.0", "::") else address
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


@contextlib.contextmanager
def _answering(app: Any, sock: socket.socket) -> Iterator[threading.Thread]:
    """uvicorn with the application in a thread, until the block ends."""
    import uvicorn

    from mdl.plugins.serve.connection import Clients, Connection

    clients = Clients(MOST_CLIENTS)
    config = uvicorn.Config(
        app,
        http=functools.partial(Connection, clients=clients),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin")],
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],), name="mdl-serve", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise MdlError("the server does not start")
            time.sleep(0.005)
        yield thread
    finally:
        server.should_exit = True
        thread.join(_GRACE_SECONDS + 5)


@contextlib.contextmanager
def _ready(path: Path, url: str) -> Iterator[None]:
    """A file with the URL, which is there while the block runs. Raises `StorageError`."""
    with storage_trouble(path, _WHEN_FULL):
        publish.write_file(path, f"{url}\n".encode(), mode=0o644, durable=False)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
