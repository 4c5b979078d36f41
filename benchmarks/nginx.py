"""nginx on the loopback, in a temporary folder, as a context manager: the server of every benchmark.

    with Nginx(folder) as server:
        get(server.url("file.bin"))                # as fast as it goes
        get(server.url("file.bin", "8m"))          # each connection limited to 8 MiB a second
    print(sum(one.bytes for one in server.served()))

    with Nginx(folder, tls=True) as server:
        get(server.url("file.bin"), trusted=server.ca)

It runs as one process, is ended by its own pid and touches nothing outside its folder.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness import Sample, skip

from mdl.hashing import Digest
from mdl.sources.hub_protocol import file_headers, repository_info

_COMMIT = "0" * 39 + "1"
_CONFIG = """\
daemon off;
master_process off;
pid {own}/pid;
error_log {own}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format facts escape=json '{{"end":$msec,"seconds":$request_time,"status":$status,"method":"$request_method",'
        '"bytes":$body_bytes_sent,"range":"$http_range","path":"$request_uri",'
        '"connection":$connection}}';
    access_log {own}/access.log facts;
    client_body_temp_path {own}/t1; proxy_temp_path {own}/t2; fastcgi_temp_path {own}/t3;
    uwsgi_temp_path {own}/t4; scgi_temp_path {own}/t5;
    default_type application/octet-stream;
    sendfile on; tcp_nopush on; keepalive_timeout 65;
{maps}
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
    connection: int

    @classmethod
    def of(cls, fact: dict[str, str]) -> Served:
        """One line of the log."""
        end, start = float(fact["end"]), str(fact["range"]).removeprefix("bytes=").split("-")[0]
        first = int(start) if start.isdigit() else 0
        began = end - float(fact["seconds"])
        numbers = int(fact["status"]), int(fact["bytes"]), first
        return cls(began, end, fact["method"], *numbers, fact["path"], int(fact["connection"]))


@dataclass(frozen=True)
class _Published:
    """A sample as a file of a repository."""

    path: str
    size: int
    digest: Digest


def hub_of(sample: Sample, rate: str = "0") -> str:
    """What ``hf download bench/file NAME`` asks for, served from the sample, at most at ``rate``."""
    file = _Published(sample.path.name, sample.size, Digest("sha256", sample.sha256))
    facts = json.dumps(repository_info("bench/file", _COMMIT, [file], gated=False, private=False, blobs=False))
    headers = file_headers(file, _COMMIT)
    del headers["Accept-Ranges"]  # nginx says so by itself
    added = " ".join(f"add_header {name} '{value}';" for name, value in headers.items())
    return f"""
        location /api/models/bench/file {{ default_type application/json; return 200 '{facts}'; }}
        location /bench/file/resolve/ {{
            rewrite ^.*/([^/]+)$ /$1 break; limit_rate {rate}; etag off;
            {added}
        }}"""


class Nginx:
    """Serves the files of ``root``. ``extra`` goes into the server block as it is, ``maps`` into the one around it.

    ``buffer`` is what the kernel may hold of an answer that is not on its way yet, as ``64k``. Left to itself it takes
    megabytes, which count as sent: too much if the client is slow or is killed.

    With ``tls`` it speaks TLS alone, with a certificate of an authority of its own, which is in the file ``ca``.
    """

    def __init__(self, root: Path, extra: str = "", buffer: str = "", *, maps: str = "", tls: bool = False) -> None:
        self.root, self._extra, self._listen = root.resolve(), extra, f" sndbuf={buffer}" if buffer else ""
        self._maps, self._scheme = maps, "https" if tls else "http"
        self._own = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            skip("nginx is not on PATH (Debian: apt install nginx-light)")
        self._own = Path(tempfile.mkdtemp(prefix="mdl-nginx-"))
        if self._scheme == "https":
            self._certify()
        for _ in range(5):
            if self._start(program):
                return self
        trouble = (self._own / "error.log").read_text(errors="replace")[-500:]
        self.__exit__()
        raise SystemExit(f"nginx does not start: {trouble}")

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the server's."""
        return self._own / "ca.pem"

    def _certify(self) -> None:
        import trustme  # only the benchmarks under TLS need it

        authority, pem = trustme.CA(), self._own / "server.pem"
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
        self._listen += " ssl"
        self._extra += f"ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {pem}; ssl_certificate_key {pem};"

    def _start(self, program: str) -> bool:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = self._own / "nginx.conf"
        facts = {"own": self._own, "port": self.port, "root": self.root, "extra": self._extra, "listen": self._listen}
        facts["maps"] = self._maps
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

    @property
    def pid(self) -> int:
        """The id of its one process."""
        assert self._process is not None
        return self._process.pid

    def url(self, name: str, rate: str = "") -> str:
        """``rate`` is nginx's limit_rate, bytes per second of one connection: ``640k``, ``10m``."""
        return f"{self._scheme}://127.0.0.1:{self.port}/{f'at/{rate}/' if rate else ''}{name}"

    def served(self) -> list[Served]:
        """What was asked and sent so far, once the log stands still; bytes as nginx gave them to the kernel."""
        log, size = self._own / "access.log", -1
        while size != (size := log.stat().st_size):
            time.sleep(0.3)
        return [Served.of(json.loads(line)) for line in log.read_text().splitlines()]

    def sent(self) -> int:
        """Bytes of bodies that were sent so far."""
        return sum(one.bytes for one in self.served() if one.method == "GET")

    def cpu(self) -> float:
        """CPU seconds the server took so far; 0 if the system does not tell."""
        assert self._process is not None
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
