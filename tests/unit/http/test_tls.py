"""TLS, with certificates made for the test: what is trusted, what is refused, and with which code."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from support.shell import Ran, Shell
from support.tls import BODY, Handler, Server, serving


def get(tmp_path: Path, ca: trustme.CA | None, url: str) -> Ran:
    extra = {}
    if ca is not None:
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        extra["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    return Shell(tmp_path, extra=extra).run("get", url, "--into", "here", "--retries", "1")


@pytest.mark.fault(84, 85)
def test_a_trusted_server(tmp_path: Path, ca: trustme.CA) -> None:
    """With its CA in SSL_CERT_FILE a file comes over TLS, byte for byte."""
    with serving(ca.issue_cert("localhost")) as url:
        ran = get(tmp_path, ca, f"{url}/file.bin")
    assert ran.code == 0, ran.err
    assert (tmp_path / "here" / "file.bin").read_bytes() == BODY


@pytest.mark.fault(84)
def test_an_unknown_authority(tmp_path: Path, ca: trustme.CA) -> None:
    """A certificate nobody vouches for is 13, and nothing advises to look away."""
    with serving(ca.issue_cert("localhost")) as url:
        ran = get(tmp_path, None, f"{url}/file.bin")
    assert ran.code == 13
    assert "verify=" not in ran.err
    assert not (tmp_path / "here" / "file.bin").exists()


@pytest.mark.fault(84, 88)
def test_another_name(tmp_path: Path, ca: trustme.CA) -> None:
    """A certificate for another host is 13."""
    with serving(ca.issue_cert("elsewhere.example")) as url:
        assert get(tmp_path, ca, f"{url}/file.bin").code == 13


@pytest.mark.fault(84)
def test_an_expired_certificate(tmp_path: Path, ca: trustme.CA) -> None:
    """A certificate of yesterday is 13 and says that it has expired."""
    past = datetime.now(UTC) - timedelta(days=1)
    with serving(ca.issue_cert("localhost", not_before=past - timedelta(days=9), not_after=past)) as url:
        ran = get(tmp_path, ca, f"{url}/file.bin")
    assert ran.code == 13
    assert "expired" in ran.err


def test_https_never_becomes_http(tmp_path: Path, ca: trustme.CA) -> None:
    """A redirect from https to http is refused, 11, without asking there (C46)."""
    with serving(ca.issue_cert("localhost")) as url:
        ran = get(tmp_path, ca, f"{url}/down")
    assert ran.code == 11
    assert "https to http" in ran.err


@pytest.mark.fault(87)
def test_plain_http_behind_https(tmp_path: Path) -> None:
    """A server that does not speak TLS at all is 13."""
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        ran = get(tmp_path, None, f"https://localhost:{server.server_address[1]}/file.bin")
    finally:
        server.shutdown()
        server.server_close()
    assert ran.code == 13


@pytest.mark.fault(85)
def test_a_missing_ca_file(tmp_path: Path) -> None:
    """SSL_CERT_FILE that names nothing is 13 at once, by the variable's name."""
    ran = Shell(tmp_path, extra={"SSL_CERT_FILE": "/nonexistent.pem"}).run(
        "get", "https://localhost:9/f", "--into", "x"
    )
    assert ran.code == 13
    assert "SSL_CERT_FILE" in ran.err
