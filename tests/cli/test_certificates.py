"""TLS, with certificates made for the test: what is trusted, what is refused, and with which exit code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.relay import BODY, relaying, serving
from support.shell import Inside, Ran, Shell

PAST = datetime.now(UTC) - timedelta(days=1)
EXPIRED = {"not_before": PAST - timedelta(days=9), "not_after": PAST}


def get(mdl: Inside, tmp_path: Path, ca: trustme.CA | None, url: str) -> Ran:
    extra = {}
    if ca is not None:
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        extra["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    return mdl(Shell(tmp_path, extra=extra), "get", url, "--into", "here", "--retries", "1")


@pytest.mark.fault(84, 85)
def test_trusted_server(mdl: Inside, tmp_path: Path, ca: trustme.CA) -> None:
    """With its CA in SSL_CERT_FILE a file comes over TLS, byte for byte."""
    with serving(ca.issue_cert("localhost")) as url:
        ran = get(mdl, tmp_path, ca, f"{url}/file.bin")
    assert ran.code == 0, ran.err
    assert (tmp_path / "here" / "file.bin").read_bytes() == BODY


@pytest.mark.fault(84, 88)
@pytest.mark.parametrize(
    ("name", "dates", "trusted", "words"),
    [
        ("localhost", {}, False, ""),
        ("elsewhere.example", {}, True, "not valid for 'localhost'"),
        ("localhost", EXPIRED, True, "expired"),
    ],
    ids=["unknown authority", "another name", "expired"],
)
def test_certificate_refused(
    mdl: Inside, tmp_path: Path, ca: trustme.CA, name: str, dates: dict[str, Any], trusted: bool, words: str
) -> None:
    """A certificate of an unknown authority, for another host or of yesterday is 13. No text advises to ignore it."""
    with serving(ca.issue_cert(name, **dates)) as url:
        ran = get(mdl, tmp_path, ca if trusted else None, f"{url}/file.bin")
    assert ran.code == 13
    assert words in ran.err
    assert "verify=" not in ran.err
    assert not (tmp_path / "here" / "file.bin").exists()


def test_https_never_becomes_http(mdl: Inside, tmp_path: Path, ca: trustme.CA) -> None:
    """A redirect from https to http is refused, 11, and the target is not asked."""
    with serving(ca.issue_cert("localhost")) as url:
        ran = get(mdl, tmp_path, ca, f"{url}/down")
    assert ran.code == 11
    assert "https to http" in ran.err


@pytest.mark.fault(87)
def test_no_tls_at_all(mdl: Inside, tmp_path: Path) -> None:
    """A server that does not speak TLS is 13."""
    with relaying(0, lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as plain:
        assert get(mdl, tmp_path, None, f"https://localhost:{plain.port}/file.bin").code == 13


@pytest.mark.fault(85)
def test_missing_ca_file(mdl: Inside, tmp_path: Path) -> None:
    """If SSL_CERT_FILE names no file, it is 13 at once, with the name of the variable."""
    shell = Shell(tmp_path, extra={"SSL_CERT_FILE": "/nonexistent.pem"})
    ran = mdl(shell, "get", "https://localhost:9/f", "--into", "x")
    assert ran.code == 13
    assert "SSL_CERT_FILE" in ran.err
