"""Certificates, protocols and ends of TLS that are not as they should be (faults, group E)."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from support import faults
from support.bench import NAME, Bench, pinned
from support.data import MIB, noise
from support.faulty_server import FaultyServer, Handler
from support.loopback_hub import LoopbackHub, Repo
from support.relay import PROXY_VARIABLES, relaying, secured, serving
from support.shell import ExitCode, done, machine

from mdl.errors import MdlError, NetworkError, TlsError
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.policy import Limits

DATA = noise(3 * MIB)
HOSTS = AllowList.of(["localhost", "127.0.0.1"])
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@pytest.fixture
def trust(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:
    """Has a certificate trusted, and no other; until it is called the one of ``ca``."""

    def it(pem: bytes) -> None:
        (tmp_path / "ca.pem").write_bytes(pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    for name in (*PROXY_VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    it(ca.cert_pem.bytes())
    return it


class Own:
    """A certificate that vouches for itself: of so many bits, with or without a name other than the common one."""

    def __init__(self, bits: int = 2048, *, names: bool = True) -> None:
        self.key = rsa.generate_private_key(65537, bits)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
        builder = builder.serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        self.pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def configure_cert(self, context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        form = serialization.PrivateFormat.PKCS8
        key = self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        place = Path(os.environ["SSL_CERT_FILE"]).with_name("own.pem")
        place.write_bytes(key + self.pem)
        context.load_cert_chain(place)


def asked(url: str) -> MdlError | None:
    """The error that asking there is; None if there is an answer."""
    try:
        with HttpClient(HOSTS, limits=Limits(connect=5.0, stall=5.0)) as http, http.open("GET", f"{url}/f"):
            return None
    except MdlError as error:
        return error


@pytest.mark.fault(84)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("not yet valid", "not yet valid"),
        ("another address", "IP address mismatch"),
        ("self-signed", "self-signed"),
        ("weak", "too weak"),
        ("common name alone", ""),
    ],
)
def test_certificates_that_are_refused(ca: trustme.CA, trust: Callable[[bytes], None], kind: str, words: str) -> None:
    """13, in the words of what is wrong with it, and no advice to look away; also if its maker is trusted."""
    if kind in ("not yet valid", "another address"):
        found = ca.issue_cert("localhost", not_before=NOW + DAY if kind.startswith("not") else None)
    else:
        found = Own(1024 if kind == "weak" else 2048, names=kind != "common name alone")
        if kind != "self-signed":
            trust(found.pem)
    with serving(found) as url:
        error = asked(url.replace("localhost", "127.0.0.1") if kind == "another address" else url)
    assert error is not None
    assert (error.exit_code, words in error.message, "verify=" in f"{error}{error.hint}") == (13, True, False)


@pytest.mark.fault(84, 85)
@pytest.mark.parametrize("kind", ["address", "folder", "own"])
def test_certificates_that_are_good(
    ca: trustme.CA, trust: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """An address that the certificate names, a CA out of SSL_CERT_DIR, a self-signed one that is trusted: all well."""
    found = Own() if kind == "own" else ca.issue_cert("127.0.0.1")
    if kind == "own":
        trust(found.pem)
    if kind == "folder":
        if not shutil.which("openssl"):
            pytest.skip("no openssl: no folder of certificates can be made")
        (tmp_path / "certs").mkdir()
        (tmp_path / "ca.pem").rename(tmp_path / "certs" / "ca.pem")
        subprocess.run(["openssl", "rehash", tmp_path / "certs"], check=True)
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certs"))
    with serving(found) as url:
        assert asked(url if kind == "own" else url.replace("localhost", "127.0.0.1")) is None


@pytest.mark.fault(85)
def test_both_clients_trust_the_same(ca: trustme.CA, exit_code: ExitCode, tmp_path: Path) -> None:
    """With --via hub the hub's own client trusts what SSL_CERT_FILE names, as mdl itself does; without it 13."""
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    with (
        LoopbackHub([Repo("org/small", {"config.json": b"{}"})]) as hub,
        relaying(int(hub.url.rpartition(":")[2]), secured(ca.issue_cert("localhost"))) as relay,
    ):
        endpoint = f"https://localhost:{relay.port}"
        knows = machine(tmp_path, endpoint=endpoint, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        done(knows.run("get", "hf:org/small", "--via", "hub", "-q"))
        assert exit_code(machine(tmp_path, endpoint=endpoint), "get", "hf:org/small", "--force", "-q") == 13
    assert (tmp_path / "models" / "org--small" / "config.json").read_bytes() == b"{}"


def speaks_old_tls(client: socket.socket, ca: trustme.CA) -> None:
    """No newer TLS than 1.0, with a certificate that is good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    ca.issue_cert("localhost").configure_cert(context)
    with pytest.raises(OSError):
        context.wrap_socket(client, server_side=True)


@pytest.mark.parametrize(
    ("speak", "kind"),
    [
        pytest.param(lambda client, _: client.sendall(EVIL), TlsError, id="plain text", marks=pytest.mark.fault(87)),
        pytest.param(speaks_old_tls, TlsError, id="TLS 1.0", marks=pytest.mark.fault(88)),
        pytest.param(lambda client, _: client.recv(65536), NetworkError, id="hangs up", marks=pytest.mark.fault(86)),
    ],
)
@pytest.mark.usefixtures("trust")
def test_no_handshake(ca: trustme.CA, speak: Callable[[socket.socket, trustme.CA], None], kind: type[MdlError]) -> None:
    """An answer before any handshake, or only an old protocol, is 13, and not a byte of it is taken. A host that hangs
    up before it has shown a certificate is the network's trouble: 5, and worth another try."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                speak(client, ca)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        error = asked(f"https://localhost:{listener.getsockname()[1]}")
        thread.join(10)
    assert isinstance(error, kind)
    assert error.code == ("NET" if kind is NetworkError else error.code)


@pytest.mark.fault(86)
@pytest.mark.parametrize(
    "cut",
    [
        faults.short_body(DATA, 2 * MIB),
        faults.chunked_cut(DATA, 2 * MIB),
        faults.no_length_cut(DATA, 2 * MIB),
    ],
    ids=["with a length", "in chunks", "until it closes"],
)
def test_cut_without_a_goodbye(
    ca: trustme.CA, bench: Bench, trust: Callable[[bytes], None], request: pytest.FixtureRequest, cut: Handler
) -> None:
    """TLS that ends in the middle of a body without a close_notify is a cut: it goes on, and the bytes are right."""
    trust(ca.cert_pem.bytes())
    with (
        FaultyServer(faults.first(1, cut, faults.honest(DATA))) as server,
        relaying(server.port, secured(ca.issue_cert("localhost"))) as relay,
    ):
        run = bench.run(pinned(f"https://localhost:{relay.port}/{NAME}", DATA), hosts=HOSTS)
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True), run.report
    assert "length" not in request.node.name or (run.rewound, run.report.bytes_fetched) == (0, len(DATA))
