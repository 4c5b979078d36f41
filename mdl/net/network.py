"""The way to the network. The HTTP client is imported and opened when something is first asked: a command that finds
everything on the disk does without."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken

if TYPE_CHECKING:
    from mdl.net.client import HttpClient


class Network:
    """Opens an `HttpClient` by ``connect`` when it is first used, by whichever thread. Close it when done.

    ``connections`` is the most that it has open at once; ``cancel`` stops what is under way.
    """

    def __init__(self, connect: Callable[[], HttpClient], connections: int, cancel: CancelToken) -> None:
        self.connections = connections
        self.cancel = cancel
        self._connect = connect
        self._lock = threading.Lock()
        self._http: HttpClient | None = None

    @property
    def http(self) -> HttpClient:
        """The client."""
        with self._lock:
            if self._http is None:
                self._http = self._connect()
            return self._http

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        if self._http is not None:
            self._http.close()
