"""Client certificates and authorities of single hosts, and what ends a TLS connection that a new try cannot mend."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from support import faults
from support.data import MIB, noise
from support.faulty_server import FaultyServer
from support.relay import PROXY_VARIABLES, Relay, relaying
from support.shell import Inside, Shell, settings

from mdl.errors import MdlError, NetworkError, TlsError, UsageError
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.credentials import HostTls
from mdl.net.policy import Limits

DATA = noise(3 * MIB)
HOSTS = AllowList.of(["localhost", "127.0.0.1"])
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(autouse=True)
def _trust(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*PROXY_VARIABLES, "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    """Who signs for the clients."""
    return trustme.CA()


class Wanting:
    """A TLS server that wants a client certificate of ``clients``, and notes the names of those that it got."""

    def __init__(self, ca: trustme.CA, clients: trustme.CA, version: ssl.TLSVersion = TLS13) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = self.context.maximum_version = version
        self.context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(self.context)
        ca.issue_cert("localhost", "127.0.0.1").configure_cert(self.context)
        self.seen: list[object] = []
        self.connections = 0

    def greet(self, client: socket.socket) -> socket.socket:
        self.connections += 1
        secured = self.context.wrap_socket(client, server_side=True)
        self.seen.append((secured.getpeercert() or {}).get("subjectAltName"))
        return secured

    @contextlib.contextmanager
    def serving(self, handler: Callable[..., object] | None = None) -> Iterator[Relay]:
        with FaultyServer(handler or faults.honest(DATA)) as origin, relaying(origin.port, self.greet) as relay:
            yield relay


def files(folder: Path, clients: trustme.CA, *, password: str = "", name: str = "client.example") -> tuple[Path, Path]:
    """A certificate and its key, in two files."""
    issued = clients.issue_cert(name)
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    if password:
        plain = serialization.load_pem_private_key(key.read_bytes(), None)
        how = serialization.BestAvailableEncryption(password.encode())
        form = serialization.PrivateFormat.PKCS8
        key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, how))
    return cert, key


def asked(url: str, *tls: HostTls) -> int:
    """How many bytes are there. Raises what asking raises."""
    with HttpClient(HOSTS, limits=Limits(connect=5.0, stall=5.0), tls=tls) as http, http.open("GET", url) as opened:
        return sum(len(block) for block in http.body(opened, int(opened.headers["content-length"])))


def refused(url: str, *tls: HostTls) -> MdlError:
    with pytest.raises(MdlError) as caught:
        asked(url, *tls)
    return caught.value


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_host_that_wants_a_certificate(
    mdl: Inside, tmp_path: Path, ca: trustme.CA, clients: trustme.CA, version: ssl.TLSVersion
) -> None:
    """Without one it is 13 at once, with the lines of config.toml that help; with these lines the file comes."""
    server = Wanting(ca, clients, version)
    shell = Shell(tmp_path, extra={"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    with server.serving() as relay:
        url, table = f"https://localhost:{relay.port}/m.bin", f'[hosts."localhost:{relay.port}"]'
        ran = mdl(shell, "get", url, "--into", "here")
        assert (ran.code, server.connections) == (13, 1), ran.err
        assert "localhost wants a client certificate" in ran.err
        assert " ".join(ran.err.split()).count(f'{table} cert = "CERTIFICATE.pem" key = "KEY.pem"') == 1
        settings(shell, "")
        cert, key = files(shell.home / ".config" / "mdl", clients)
        settings(shell, f'{table}\ncert = "{cert.name}"\nkey = "{key}"\n')
        ran = mdl(shell, "get", url, "--into", "here")
    assert ran.code == 0, ran.err
    assert (tmp_path / "here" / "m.bin").read_bytes() == DATA
    assert set(server.seen[-1:]) == {(("DNS", "client.example"),)}


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_certificate_that_the_host_refuses(
    tmp_path: Path, ca: trustme.CA, clients: trustme.CA, version: ssl.TLSVersion
) -> None:
    """One of another authority is 13, in the server's words, and the certificate is named."""
    cert, key = files(tmp_path, trustme.CA())
    with Wanting(ca, clients, version).serving() as relay:
        error = refused(f"https://localhost:{relay.port}/f", HostTls(f"localhost:{relay.port}", cert, key))
    assert isinstance(error, TlsError)
    assert f"does not accept the client certificate {cert}" in error.message


@pytest.mark.parametrize("password", ["", "pass word"])
def test_one_file_may_hold_both(tmp_path: Path, ca: trustme.CA, clients: trustme.CA, password: str) -> None:
    """Certificate and key in one PEM, the key with a password or without one."""
    cert, key = files(tmp_path, clients, password=password)
    cert.write_bytes(key.read_bytes() + cert.read_bytes())
    with Wanting(ca, clients).serving() as relay:
        tls = HostTls(f"localhost:{relay.port}", cert, password=password, password_variable="PW")
        assert asked(f"https://localhost:{relay.port}/f", tls) == len(DATA)


def test_files_that_cannot_be_used(tmp_path: Path, ca: trustme.CA, clients: trustme.CA) -> None:
    """A missing or unreadable file is 2, a key of another certificate and a wrong password are 13; each names the
    file, and no password is shown. Nothing is asked."""
    cert, key = files(tmp_path, clients, password="right word")
    other = files(tmp_path, clients, name="other.example")[1]
    (tmp_path / "words.pem").write_text("these are words\n")
    os.mkfifo(tmp_path / "pipe.pem")
    server = Wanting(ca, clients)
    with server.serving() as relay:
        place, url = f"localhost:{relay.port}", f"https://localhost:{relay.port}/f"
        for tls, kind, named in (
            (HostTls(place, tmp_path / "no.pem", key), UsageError, "no.pem"),
            (HostTls(place, cert, tmp_path / "no.key"), UsageError, "no.key"),
            (HostTls(place, ca=tmp_path / "no-ca.pem"), UsageError, "no-ca.pem"),
            (HostTls(place, tmp_path, key), UsageError, str(tmp_path)),
            (HostTls(place, tmp_path / "pipe.pem", key), UsageError, "pipe.pem"),
            (HostTls(place, cert, other), TlsError, "not that of the certificate"),
            (HostTls(place, tmp_path / "words.pem", other), TlsError, "words.pem"),
            (HostTls(place, ca=tmp_path / "words.pem"), TlsError, "words.pem"),
            (HostTls(place, cert), TlsError, str(cert)),
            (HostTls(place, cert, key, password="wrong word", password_variable="PW"), TlsError, "PW"),
            (HostTls(place, cert, key, password="w" * 2000, password_variable="PW"), TlsError, "PW"),
            (HostTls(place, cert, key, password_variable="PW"), TlsError, "set PW"),
            (HostTls(place, cert, key), TlsError, "key_password_env"),
        ):
            error = refused(url, tls)
            text = f"{error.item} {error.message} {error.hint}"
            assert (type(error), named in text, "word" in text.replace("words", "").replace("password", "")) == (
                kind,
                True,
                False,
            ), text
    assert server.connections == 0


@pytest.mark.fault(47)
def test_no_other_host_gets_the_certificate(tmp_path: Path, ca: trustme.CA, clients: trustme.CA) -> None:
    """It is shown to the host and port that it is written down for; what that redirects to does not see it."""
    cert, key = files(tmp_path, clients)
    second = Wanting(ca, clients)
    second.context.verify_mode = ssl.CERT_OPTIONAL
    first = Wanting(ca, clients)
    with second.serving() as there, first.serving(faults.redirects(f"https://127.0.0.1:{there.port}/f")) as here:
        tls = HostTls(f"localhost:{here.port}", cert, key)
        assert asked(f"https://localhost:{here.port}/f", tls) == len(DATA)
    assert (len(first.seen), first.seen[0] is None, set(second.seen)) == (1, False, {None})


def test_an_authority_of_one_host(tmp_path: Path, ca: trustme.CA, clients: trustme.CA) -> None:
    """``ca`` is trusted beside the others, and for that host alone."""
    nosy = trustme.CA()
    (tmp_path / "nosy.pem").write_bytes(nosy.cert_pem.bytes())
    other, usual = Wanting(nosy, clients), Wanting(ca, clients)
    for one in (other, usual):
        one.context.verify_mode = ssl.CERT_NONE
    with other.serving() as there, usual.serving() as here:
        tls = HostTls(f"localhost:{there.port}", ca=tmp_path / "nosy.pem")
        assert asked(f"https://localhost:{there.port}/f", tls) == len(DATA)
        assert isinstance(refused(f"https://127.0.0.1:{there.port}/f", tls), TlsError)
        assert asked(f"https://localhost:{here.port}/f", HostTls(f"localhost:{here.port}", ca=tmp_path / "nosy.pem"))


ALERTS = {
    40: ("handshake_failure", TlsError),
    42: ("bad_certificate", TlsError),
    48: ("unknown_ca", TlsError),
    49: ("access_denied", TlsError),
    70: ("protocol_version", TlsError),
    71: ("insufficient_security", TlsError),
    112: ("unrecognized_name", TlsError),
    116: ("certificate_required", TlsError),
    80: ("internal_error", NetworkError),
    20: ("bad_record_mac", NetworkError),
}


@pytest.mark.parametrize("number", ALERTS, ids=lambda number: str(ALERTS[number][0]))
def test_what_an_alert_means(number: int) -> None:
    """An alert that a new try cannot mend is 13 and final; one of a server in trouble is tried again."""

    def greet(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(bytes([21, 3, 3, 0, 2, 2, number]))
        client.recv(4096)

    with relaying(9, greet) as relay:
        error = refused(f"https://localhost:{relay.port}/f")
    assert type(error) is ALERTS[number][1], error
    assert error.hint


def test_a_server_that_says_it_in_http(tmp_path: Path, ca: trustme.CA, clients: trustme.CA) -> None:
    """nginx completes the handshake and answers 400: the same error."""
    page = b"<html><head><title>400 No required SSL certificate was sent</title></head></html>"
    server = Wanting(ca, clients)
    server.context.verify_mode = ssl.CERT_NONE
    with server.serving(faults.answers(400, body=page)) as relay:
        error = refused(f"https://localhost:{relay.port}/f")
    assert (error.exit_code, "wants a client certificate" in error.message) == (13, True)
    assert f'[hosts."localhost:{relay.port}"]' in str(error.hint)


def test_a_key_log_that_cannot_be_written(mdl: Inside, tmp_path: Path, ca: trustme.CA, clients: trustme.CA) -> None:
    """It is one warning with the variable and the reason; a key log that can be written is written."""
    server = Wanting(ca, clients)
    server.context.verify_mode = ssl.CERT_NONE
    os.mkfifo(tmp_path / "pipe")
    with server.serving() as relay:
        for number, place in enumerate(("missing/keys.log", str(tmp_path), "pipe", "keys.log")):
            extra = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "SSLKEYLOGFILE": str(tmp_path / place)}
            url = f"https://localhost:{relay.port}/{number}.bin"
            ran = mdl(Shell(tmp_path, extra=extra), "get", url, "--into", "here")
            assert (ran.code, ran.err.count("SSLKEYLOGFILE is not used")) == (0, int(place != "keys.log")), ran.err
    assert "CLIENT_" in (tmp_path / "keys.log").read_text()
