"""A running server of `support.trainer_server`. FastAPI is imported when the first one starts, not with the tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.polling import until


@contextmanager
def training_server(runs: Path) -> Iterator[str]:
    """The URL of a server of the runs below ``runs``, in a thread of this process."""
    import uvicorn

    from support.trainer_server import application

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application(runs), log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],), name="trainer", daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
