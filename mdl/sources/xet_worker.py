"""The process that hf_xet runs in. `mdl.sources.xet` starts it as a script, so it imports nothing of mdl.

hf_xet has a runtime, buffers and a log of its own, and cannot be stopped from outside. Here it can be killed, and takes
nothing with it. It has no connection but the Unix socket ``argv[1]``. Orders come on standard input, a socket: each is
one message of `ORDER` bytes, with a socket for the bytes. There a block is preceded by its length in four bytes. A
length of zero ends the stream, with words behind it if hf_xet says that something went wrong.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any

ORDER = 512
READY = b"ready"
_MIB = 2**20
_NEVER = 2**31 - 1

_CONFIG = {
    "telemetry.enabled": False,
    "client.retry_max_attempts": 0,  # mdl tries again, within its own limits
    "client.connect_timeout": "600s",  # mdl watches for silence
    "client.read_timeout": "600s",
    "client.enable_multirange_fetching": False,
    "reconstruction.min_reconstruction_fetch_size": 16 * _MIB,
    "reconstruction.download_buffer_size": 64 * _MIB,
    "reconstruction.download_buffer_perfile_size": 8 * _MIB,
    "reconstruction.download_buffer_limit": 128 * _MIB,
    "reconstruction.min_prefetch_buffer": 32 * _MIB,
}


def main(place: Path) -> None:
    """Take orders until mdl closes the socket, or is gone; then remove the folder that ``place`` is in."""
    try:
        with contextlib.suppress(OSError):
            _take_orders(socket.socket(fileno=0), str(place))
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)


def _take_orders(control: socket.socket, gateway: str) -> None:
    try:
        import hf_xet  # type: ignore[import-untyped]

        session = hf_xet.XetSession(hf_xet.XetConfig().with_config({**_CONFIG, "client.unix_socket_path": gateway}))
    except Exception as error:
        control.sendall(f"{type(error).__name__}: {error}".encode()[:ORDER])
        return
    control.sendall(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, ORDER, 1)
        if not message or not descriptors:
            return
        out = socket.socket(fileno=descriptors[0])
        threading.Thread(target=_stream, args=(hf_xet, session, json.loads(message), out), daemon=True).start()


def _stream(hf_xet: Any, session: Any, order: dict[str, Any], out: socket.socket) -> None:
    """Send the bytes of a range, and if it ends too early, why."""
    with out, contextlib.suppress(OSError):
        try:
            group = session.new_download_stream_group(
                endpoint=order["endpoint"], token=order["key"], token_expiry_unix_secs=_NEVER
            )
            info = hf_xet.XetFileInfo(order["hash"], order["size"])
            for block in group.download_stream(info, order["start"], order["stop"]):
                out.sendall(len(block).to_bytes(4, "big"))
                out.sendall(block)
            out.sendall(bytes(4))
        except Exception as error:
            out.sendall(bytes(4) + f"{type(error).__name__}: {error}".encode(errors="replace"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
