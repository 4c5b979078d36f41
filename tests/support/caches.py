"""Real caches on loopback that fetch the whole file for each range: squid and nginx, each before one origin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import free_ports, serving_at

_SQUID = """
http_access allow all
range_offset_limit none
quick_abort_min -1 KB
cache_mem 8 MB
pid_filename {folder}/pid
cache_log {folder}/cache.log
access_log none
shutdown_lifetime 0 seconds
coredump_dir {folder}
visible_hostname cache.example
"""
_SILENT = "via off\nreply_header_access Via deny all\nreply_header_access X-Cache deny all\n"
_NGINX = """
worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{
    access_log off; proxy_cache_path {folder}/cache keys_zone=z:1m; proxy_temp_path {folder}/p;
    client_body_temp_path {folder}/b; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port}; location / {{
        proxy_pass http://127.0.0.1:{origin}; proxy_cache z; proxy_cache_valid 200 1h;
    }} }}
}}
"""


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"NO {name.upper()} HERE: how it fetches whole files for ranges is not tried")
    return found


@contextmanager
def squid(folder: Path, origin: int, *, accelerates: bool = False, tells: bool = True) -> Iterator[str]:
    """squid as a proxy, or as an accelerator before the server at that port. It ``tells`` of itself in headers."""
    program, [port] = _program("squid"), free_ports(1)
    folder.chmod(0o777)
    place = f"http_port 127.0.0.1:{port}\n"
    if accelerates:
        place = f"http_port 127.0.0.1:{port} accel defaultsite=127.0.0.1 no-vhost\n"
        place += f"cache_peer 127.0.0.1 parent {origin} 0 no-query originserver no-digest\n"
    (folder / "squid.conf").write_text(place + ("" if tells else _SILENT) + _SQUID.format(folder=folder))
    url = f"http://127.0.0.1:{port}"
    with serving_at(f"{url}/squid-internal-mgr/info", [program, "-N", "-f", str(folder / "squid.conf")]):
        yield url


@contextmanager
def nginx_cache(folder: Path, origin: int) -> Iterator[str]:
    """nginx with proxy_cache, without a lock and without slices, before the server at that port."""
    program, [port] = _program("nginx"), free_ports(1)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, origin=origin))
    words = [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    url = f"http://127.0.0.1:{port}"
    with serving_at(f"{url}/small", [*words, "-g", "daemon off; master_process off;"]):
        yield url
