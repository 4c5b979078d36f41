"""TLS contexts: all alike, wherever the certificates come from, and the error names what failed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from support.cases import each

from mdl.errors import TlsError
from mdl.net import certificates
from mdl.net.certificates import Trust, make_context
from mdl.net.connection_errors import asks_for_certificate, tls_error
from mdl.net.credentials import HostTls


@pytest.mark.parametrize("kind", ["SSL_CERT_FILE", "SSL_CERT_DIR", "system", "certifi", "ca of a host"])
def test_no_context_is_strict(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: trustme.CA) -> None:
    """The flags that Python 3.13 adds are in no context; names and chains are checked; an intermediate authority that
    is trusted is enough, as for curl."""
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    environ = {kind: str(tmp_path / "ca.pem" if kind.endswith("FILE") else tmp_path)} if kind.startswith("SSL") else {}
    if kind == "certifi":
        monkeypatch.setattr("mdl.net.certificates.has_system_store", lambda: False)
    place = HostTls("h.example:8443", ca=tmp_path / "ca.pem")
    own = Trust(environ, [place])
    context = own.context("h.example", 8443 if kind == "ca of a host" else 443)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context is own.context("h.example", 8443 if kind == "ca of a host" else 443)
    assert context is not own.context("h.example", 443 if kind == "ca of a host" else 8443)


def test_a_strict_default_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every new context is strict, as `ssl.create_default_context` makes them from Python 3.13 on."""
    strict = certificates.make_context({})
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    monkeypatch.setattr(certificates, "new_context", lambda *_: strict)
    assert certificates.make_context({}) is strict
    assert not strict.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.fault(85)
def test_the_file_that_failed_is_named(tmp_path: Path, ca: trustme.CA) -> None:
    """Of two variables the error names the one whose file cannot be used."""
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    (tmp_path / "words.pem").write_text("words")
    good, bad = str(tmp_path / "ca.pem"), str(tmp_path / "words.pem")
    for file in (bad, str(tmp_path / "no.pem"), str(tmp_path)):
        with pytest.raises(TlsError, match=file) as caught:
            make_context({"SSL_CERT_FILE": file, "SSL_CERT_DIR": str(tmp_path), "SSLKEYLOGFILE": good})
        assert "SSL_CERT_FILE" in str(caught.value.hint)


@pytest.mark.parametrize("folders", ["{}/gone", "{}/gone:{}/ca.pem", '"{}/gone"'])
def test_folders_that_are_not_there_are_named(tmp_path: Path, ca: trustme.CA, folders: str) -> None:
    """Where no folder is there, no host could be trusted: the error says so. One folder is enough, or a file."""
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    gone = folders.format(tmp_path, tmp_path)
    with pytest.raises(TlsError, match="/gone") as caught:
        make_context({"SSL_CERT_DIR": gone})
    assert "SSL_CERT_DIR" in str(caught.value.hint)
    make_context({"SSL_CERT_DIR": f"{tmp_path}/gone:{tmp_path}"})
    make_context({"SSL_CERT_DIR": gone, "SSL_CERT_FILE": str(tmp_path / "ca.pem")})


def test_a_certificate_in_der(tmp_path: Path, ca: trustme.CA) -> None:
    """What Windows exports as .cer is no PEM: the hint is the command that converts it."""
    file = tmp_path / "company.cer"
    file.write_bytes(ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode()))
    with pytest.raises(TlsError) as caught:
        make_context({"SSL_CERT_FILE": str(file)})
    assert f"openssl x509 -inform der -in {file} -out" in str(caught.value.hint)


@each(
    ("code", "unread", "words"),
    [
        (20, (), "SSL_CERT_FILE"),
        (20, (), 'ca of [hosts."h.example:8443"]'),
        (19, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "does not read REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"),
        (10, ("REQUESTS_CA_BUNDLE",), "clock"),
        (9, (), "clock"),
        (62, (), "host in the URL"),
        (64, (), "host in the URL"),
        (99, (), "mdl doctor"),
    ],
)
def test_the_hint_comes_from_the_reason(code: int, unread: tuple[str, ...], words: str) -> None:
    """Dates send to the clock, names to the URL, an unknown authority to its certificate and to the variables that
    have it already."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_code = code
    error = tls_error(cause, "https://h.example:8443/f", unread=unread)
    assert (error.exit_code, words in str(error.hint)) == (13, True)


@each("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<html>"])
def test_a_server_without_tls(answer: bytes) -> None:
    """The hint is to ask it without TLS, and the exit code 13."""
    context, incoming = ssl.create_default_context(), ssl.MemoryBIO()
    incoming.write(answer)
    with pytest.raises(ssl.SSLError) as caught:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="h.example").do_handshake()
    error = tls_error(caught.value, "https://h.example:8080/f")
    assert error.exit_code == 13
    assert error.hint == "the server speaks plain http: try http://h.example:8080, or check the port"


@each(("reason", "is_open", "code"), [("TLSV1_ALERT_PROTOCOL_VERSION", False, 13), ("BAD_RECORD_MAC", True, 5)])
def test_a_connection_that_tls_ends(reason: str, is_open: bool, code: int) -> None:
    """A server that refuses it for good is 13; what went wrong on the way, once it is open, is tried again."""
    cause = ssl.SSLError(1, f"[SSL: {reason}]")
    cause.reason = reason
    error = tls_error(cause, "https://h.example/f", is_open=is_open)
    assert (error.exit_code, "h.example" in str(error)) == (code, True)


@each("is_open", [True, False])
def test_a_server_that_hangs_up(is_open: bool) -> None:
    """Without a word of TLS it may have been a restart: it is tried again."""
    error = tls_error(ssl.SSLEOFError(8, "EOF occurred"), "https://h.example/f", is_open=is_open)
    assert (error.exit_code, "hung up" in str(error)) == (5, True)


@each("cut", range(0, 40, 3))
def test_a_handshake_that_asks_for_a_certificate(cut: int) -> None:
    """It is found over the borders of records; anything else is none."""
    hello, request, done = b"\x02\x00\x00\x04abcd", b"\x0d\x00\x00\x02\x01\x00", b"\x0e\x00\x00\x00"
    for messages, wants in (
        (hello + request + done, True),
        (hello + done, False),
        (hello + b"\x0b\x00\x00\x09" + request, False),
    ):
        pieces = [messages[:cut], messages[cut:]]
        records = b"".join(b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece for piece in pieces if piece)
        assert asks_for_certificate(records) == wants
        assert asks_for_certificate(records + b"\x15\x03\x03\x00\x02\x02\x28") == wants
        assert not asks_for_certificate(records[: len(hello)])
    assert not asks_for_certificate(b"")
