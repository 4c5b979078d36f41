"""nginx on the loopback, in a temporary folder, as a context manager: the server of every benchmark.

    with Nginx(folder) as server:
        get(server.url("file.bin"))                # as fast as it goes
        get(server.url("file.bin", "8m"))          # each connection limited to 8 MiB a second
    print(sum(one.bytes for one in server.served()))

It runs as one process, ends by its own pid and touches nothing outside its folder. As a script it serves
a folder until it is interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SKIPPED = 77
"""Exit code of a benchmark that could not run here."""

_CONFIG = """\
daemon off;
master_process off;
pid {own}/pid;
error_log {own}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format facts escape=json '{{"end":$msec,"seconds":$request_time,"status":$status,"method":"$request_method",'
        '"bytes":$body_bytes_sent,"range":"$http_range","path":"$request_uri"}}';
    access_log {own}/access.log facts;
    client_body_temp_path {own}/t1; proxy_temp_path {own}/t2; fastcgi_temp_path {own}/t3;
    uwsgi_temp_path {own}/t4; scgi_temp_path {own}/t5;
    default_type application/octet-stream;
    sendfile on; tcp_nopush on; keepalive_timeout 65;
    map $request_uri $rate {{ ~^/at/(?<asked>[0-9]+[km]?)/ $asked; default 0; }}
    server {{
        listen 127.0.0.1:{port}{listen};
        root {root};
        location / {{ }}
        location /at/ {{ rewrite ^/at/[0-9a-z]+/(.*)$ /$1 break; limit_rate $rate; }}
{extra}
    }}
}}
"""


@dataclass(frozen=True)
class Served:
    """One request as the access log has it; ``first`` is the first byte asked for, times are of the epoch."""

    began: float
    ended: float
    method: str
    status: int
    bytes: int
    first: int
    path: str


class Nginx:
    """Serves the files of ``root``. ``extra`` goes into the server block as it is.

    ``buffer`` is what the kernel may hold of an answer that is not on its way yet, as ``64k``. Left to itself it takes
    megabytes, which count as sent: too much where the client is slow or is killed.
    """

    def __init__(self, root: Path, extra: str = "", buffer: str = "") -> None:
        self.root, self._extra, self._listen = root.resolve(), extra, f" sndbuf={buffer}" if buffer else ""
        self._own = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            print("SKIPPED: nginx is not on PATH (Debian: apt install nginx-light)", file=sys.stderr)
            raise SystemExit(SKIPPED)
        self._own = Path(tempfile.mkdtemp(prefix="mdl-nginx-"))
        for _ in range(5):
            if self._start(program):
                return self
        trouble = (self._own / "error.log").read_text(errors="replace")[-500:]
        self.__exit__()
        raise SystemExit(f"nginx does not start: {trouble}")

    def _start(self, program: str) -> bool:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = self._own / "nginx.conf"
        facts = {"own": self._own, "port": self.port, "root": self.root, "extra": self._extra, "listen": self._listen}
        config.write_text(_CONFIG.format(**facts))
        command = [program, "-p", str(self._own), "-e", str(self._own / "error.log"), "-c", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                if self._process.poll() is not None:
                    return False
                time.sleep(0.02)
        return False

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._own, ignore_errors=True)

    def url(self, name: str, rate: str = "") -> str:
        """``rate`` is nginx's limit_rate, bytes per second of one connection: ``640k``, ``10m``."""
        return f"http://127.0.0.1:{self.port}/{f'at/{rate}/' if rate else ''}{name}"

    def served(self) -> list[Served]:
        """What was asked and sent so far, once the log stands still; bytes as nginx gave them to the kernel."""
        log, size = self._own / "access.log", -1
        while size != (size := log.stat().st_size):
            time.sleep(0.3)
        return [_served(json.loads(line)) for line in log.read_text().splitlines()]

    def cpu(self) -> float:
        """CPU seconds the server took so far; 0 where the system does not tell."""
        assert self._process is not None
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _served(fact: dict[str, str]) -> Served:
    end, start = float(fact["end"]), str(fact["range"]).removeprefix("bytes=").split("-")[0]
    return Served(
        began=end - float(fact["seconds"]),
        ended=end,
        method=fact["method"],
        status=int(fact["status"]),
        bytes=int(fact["bytes"]),
        first=int(start) if start.isdigit() else 0,
        path=fact["path"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder on the loopback with nginx until interrupted.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    folder = parser.parse_args().folder
    with Nginx(folder) as server:
        print(server.url(""), "and", server.url("", "10m"), "with 10 MiB/s a connection")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
