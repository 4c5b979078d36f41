"""A real nginx on loopback, one process a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import free_ports, serving_at

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def has_nginx() -> bool:
    return shutil.which("nginx") is not None


@contextmanager
def nginx(folder: Path, locations: str) -> Iterator[str]:
    """nginx with these ``location`` blocks; files are below ``folder / "files"``. Gives its URL."""
    [port] = free_ports(1)
    (folder / "files").mkdir(parents=True, exist_ok=True)
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
    (folder / "nginx.conf").write_text(
        f"worker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}default_type application/octet-stream;\n"
        f"server {{\nlisten 127.0.0.1:{port};\nroot {folder}/files;\n{locations}}}\n}}\n"
    )
    words = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    url = f"http://127.0.0.1:{port}"
    with serving_at(url, [*words, "-g", "daemon off; master_process off;"]):
        yield url
