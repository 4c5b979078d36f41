"""What came instead of a file is never a model, and a right file is never refused."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import Bench
from support.cases import each
from support.data import MIB, noise
from support.faults import honest
from support.weights import gguf_file, hdf5_file, npy_array, tar_file, torch_file, whole_file, zipped

from mdl.downloader.content_check import LOOKED_AT, check_content, check_message

LARGE = 3 * MIB
PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Accept our terms</body></html>"
CAPTIVE = b"<html>login please</html>"
SIGN_IN = b'<html><head><title>Hello</title></head><form action="/in"><input name=p type="password"></form>'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
HEADER = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + b"abcd"
ONNX = b"\x08\x07\x12\x07pytorch\x1a\x032.1"
DATA_HOSTS = ("portal.nersc.gov", "account.blob.core.windows.net", "auth-models.s3.amazonaws.com", "login.example")
RIGHT = {
    "model.gguf": gguf_file(),
    "model.safetensors": SAFETENSORS,
    "data.zip": b"PK\x03\x04rest" + b"PK\x05\x06" + bytes(18),
    "empty.zip": b"PK\x05\x06" + bytes(18),
    "setup.zip": b"MZ\x90\x00 unpacks itself",
    "model.onnx": ONNX,
    "model.pt": b"PK\x03\x04archive/data.pkl",
    "old.ckpt": b"\x80\x02}q\x00(X\x07",
    "text.pkl": b"(dp0\nS'a'\np1\nI1\ns.",
    "weights.bin": b"",
    "config.json": b'{"html": "<html><title>login</title>"}',
    "vocab.txt": b"<html>\n<head>\nlogin\n",
    "README.md": b"<!-- x -->\n<html><h1 align=center>",
    "index.html": PAGE,
    "login.HTML": SIGN_IN,
    "tokenizer.model": b"\x0a\x0e\x0a\x05<unk>\x15",
    "merges": b"#version: 0.2\n<h tml>\n",
    "chat_template.jinja": b"<html>{{ messages }}</html>",
    "pointer.txt": POINTER + bytes(2000),
    "a.h5": hdf5_file(user_block=1024),
    "a.keras": zipped({"config.json": b"{}"}),
    "a.npy": npy_array(),
    "a.npz": zipped({"a.npy": npy_array()}),
    "a.nemo": tar_file({"a": b"b"}),
    "a.tgz": tar_file({"a": b"b"}, "w:gz"),
    "a.tar": tar_file({}),
    "a.pth.tar": torch_file(),
    "a.engine": b"ftrt\x00\x01",
    "raw.bin": b"\0weight" * 9,
    "even.bin": b"w\0eightss" * 9,
    "error.json": b'{"error": "this is what was asked for"}',
    "error.txt": b"Unauthorized",
    "LICENSE": b"Unauthorized use of this model is not permitted to anybody. " * 9,
    "VERSION": b"4.0.1",
    "m.vec": b"400 2\nthe 0.1 0.2\n",
    "m.arpa": b"\\data\\\nngram 1=3\n",
    "m.phones": b"<s>\n<unk>\n<p>\n<a>\n",
    "m.mdl": b"<TransitionModel> <Topology>\n",
    "m.cfg": b"error_rate = 1\n",
    "errors.dict": b"errors 0\nfile 1\nnot 2\n",
    "defects.names": b"bad weld\ngood weld\n",
    "labels.lst": b"service dog\npug\n",
    "ids.map": b"401\tdog\n402\tcat\n",
    "one.map": b"401\tdog\n",
    "labels": b"error\nok\n",
    "one.names": b"bad weld\n",
    "pets": b"service dog\n",
    "parts": b"gateway drug\n",
    "README": b'<div align="center">\n# Model\n</div>\n',
    "README.zh-CN": b"<h1>Model</h1>\n",
    "notes.mdx": b"<div>\n",
    "card": b"<center>A long text</center>\n" * 20,
}
"""What may come under these names."""
NO_TEXT = """
    .pt .pth .ckpt .bin .h5 .hdf5 .keras .gguf .ggml .safetensors .onnx .tflite .npy .npz .nemo .engine .zip .tar .gz
    .tgz .pth.tar .th .pdparams .msgpack .pb .plan .distcp .7z .bz2 .xz .zst .weights.h5 .PT
"""
UNAUTHORIZED = b'{"error":"Unauthorized","message":"The creator requires you to be logged in"}'
MESSAGES = {
    "JSON": (UNAUTHORIZED, "The creator requires you to be logged in"),
    "text": (b"Quota exceeded, try again tomorrow.\n", "Quota exceeded, try again tomorrow."),
    "with a mark": (b"\xef\xbb\xbfNot now, please", "Not now, please"),
    "other letters": ("دسترسی مجاز نیست".encode(), "دسترسی مجاز نیست"),
    "UTF-16 with a mark": ("Access denied".encode("utf-16"), "Access denied"),
    "UTF-16": ("Access denied".encode("utf-16-le"), "Access denied"),
    "XML": (b"<?xml version='1.0'?><Error><Code>X</Code><Message>Slow down</Message></Error>", "Slow down"),
    "longer than what is looked at": (b"Blocked by the firewall. " * 9000, "Blocked by the firewall."),
    "a letter cut in two": (b"a" + "é".encode() * LOOKED_AT, "aé"),
}


@pytest.mark.fault(259)
@each("name", RIGHT)
def test_a_right_file_is_never_refused(name: str) -> None:
    """The bytes decide, whatever type the server says."""
    assert check_content(name, RIGHT[name], len(RIGHT[name])) is None


@pytest.mark.fault(259)
@each(
    ("name", "body", "more", "exit_code"),
    [
        ("model.gguf", CAPTIVE, {}, 6),
        ("model.bin", PAGE, {}, 6),
        ("model.bin", b"<div>" + SIGN_IN[26:] * 9, {}, 4),
        ("config.json", b"\xef\xbb\xbf\n" + PAGE, {}, 6),
        ("12345", PAGE, {}, 6),
        ("model.pt", SIGN_IN, {}, 4),
        ("model.pt", b"<html><head><title>Sign in \xc2\xb7 Example</title>", {}, 4),
        ("model.pt", b"<html><title>Log in</title>", {}, 4),
        ("model.pt", PAGE, {"url": "https://id.example.org/login?next=x"}, 4),
        *(("model.pt", PAGE, {"url": f"https://{host}/w.bin"}, 6) for host in DATA_HOSTS),
        ("model.bin", b"Please sign in to the network.\n", {}, 6),
        ("model.safetensors", POINTER, {}, 6),
        ("config.json", POINTER, {}, 6),
        ("model.gguf", b"GGML\x03\x00", {}, 6),
        ("model.gguf", b"", {}, 6),
        ("MODEL.GGUF", b'{"error": "no"}', {}, 6),
        ("model.safetensors", b'{"error": "quota"}', {}, 6),
        ("model.safetensors", struct.pack("<Q", 2**40) + HEADER, {}, 6),
        ("model.safetensors", SAFETENSORS[:4], {}, 6),
        ("data.zip", b"Rar!\x1a\x07", {}, 6),
        ("data.zip", b'{"message": "not yet"}', {}, 6),
        ("model.onnx", b'{"error": 1}', {}, 6),
        ("model.onnx", b"Not found", {}, 6),
    ],
)
def test_what_is_no_such_file(name: str, body: bytes, more: dict[str, str], exit_code: int) -> None:
    """A page, a page to sign in at, a pointer and another format are refused, with what to do."""
    error = check_content(name, body, len(body), **more)
    assert error
    assert (error.exit_code, bool(error.hint)) == (exit_code, True)


@pytest.mark.no_cover
@pytest.mark.fault(259)
@each("suffix", NO_TEXT.split())
@each(("body", "words"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_never_a_model(suffix: str, body: bytes, words: str) -> None:
    """What begins as a text is none of the files that hold no text; the server's own words are told."""
    error = check_content(f"model{suffix}", body[:LOOKED_AT], len(body))
    assert error
    assert error.exit_code == 6
    assert error.message.startswith("the server sent a message, not the file")
    assert words in error.message


@given(st.binary(max_size=200), st.sampled_from(["m.pt", "m.bin", "m.json", "m", "m.txt"]))
def test_noise_is_a_file(data: bytes, name: str) -> None:
    """Bytes of no known format are accepted, whatever they look like in the middle."""
    assert check_content(name, b"\x80" + data + PAGE, 200 + len(PAGE)) is None


@pytest.mark.fault(259)
@pytest.mark.parametrize(
    ("body", "exit_code"),
    [
        *((PAGE, 6), (SIGN_IN, 4), (POINTER, 6), (noise(500), 6)),
        *((PAGE + b" " * LARGE, 6), (SIGN_IN + b" " * LARGE, 4), (noise(LARGE), 6)),
    ],
    ids=["page", "sign-in page", "pointer", "noise", "large page", "large sign-in page", "large noise"],
)
def test_nothing_is_published(bench: Bench, body: bytes, exit_code: int) -> None:
    """Of a file without a digest, small or large, nothing of what came is left, not even as a partial."""
    assert bench.fetch(honest(body), body, known=False, path="model.gguf").code == exit_code
    assert (bench.strangers(), bench.partials) == ([], [])


@pytest.mark.fault(259)
@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "data.zip", "model.onnx", "index.html"])
def test_right_ones_come(bench: Bench, name: str) -> None:
    """A right file without a digest is published."""
    assert bench.fetch(honest(RIGHT[name]), RIGHT[name], known=False, path=name).code == 0
    assert (bench.store.folder("m") / name).read_bytes() == RIGHT[name]


@pytest.mark.fault(259)
def test_a_message_is_asked_for_once(bench: Bench) -> None:
    """A message with status 200 is told, not retried, and nothing of it is left."""
    run = bench.fetch(honest(UNAUTHORIZED), UNAUTHORIZED, known=False, path="m.pt")
    assert (run.code, len(run.requests)) == (6, 1)
    assert (bench.strangers(), bench.partials) == ([], [])


@pytest.mark.fault(259)
def test_a_digest_that_fits_overrules_it(bench: Bench) -> None:
    """If the source publishes the digest of a text under such a name, that is what is there."""
    assert bench.fetch(honest(UNAUTHORIZED), UNAUTHORIZED, known=True, path="m.pt").code == 0


@pytest.mark.fault(259)
@pytest.mark.parametrize("name", ["m.pt", "m.gguf", "m.h5", "m.nemo"])
def test_a_file_without_its_end_is_not_published(bench: Bench, name: str) -> None:
    """A server may end a stream in good order that is cut; the file's own end record tells."""
    cut = whole_file(name)[:-700]
    assert bench.fetch(honest(cut), cut, known=False, path=name).code == 6
    assert bench.strangers() == []


PLAIN_ERRORS = """
    404: Not Found|Not Found|Unauthorized|Access denied. Please log in.|Entry not found|Rate limit exceeded
    You are not allowed to access this resource|File m.foo does not exist on the server.|error code: 1015
    Please sign in first|upstream connect error or disconnect/reset before headers|no healthy upstream
    502 Bad Gateway|503 - Service Unavailable|Bad Gateway|Service temporarily unavailable|Gateway Timeout\n|error
    error 1020|400 Bad Request\r\n|Authentication required|Bad request
    Invalid token|Error: quota|Download limit exceeded for this file|Internal Server Error|The file was not found
    <script>location.href="/login"</script>|<meta http-equiv="refresh" content="0; url=/login">|<center>Blocked</center>
    <br />\n<b>Warning</b>: fopen() failed|{"Code":10010,"Message":"Repo not exist","Success":false}
    <?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
    <EnumerationResults ServiceEndpoint="https://a.blob.core.windows.net/"><Blobs/></EnumerationResults>
"""


@pytest.mark.fault(259)
@each("name", ["m.q4_0", "m.foo", "model"])
def test_an_error_in_plain_words_under_a_name_that_nobody_knows(name: str) -> None:
    """A short text that begins as servers word an error is no model; a text file says what it likes."""
    for words in PLAIN_ERRORS.strip().replace("\n    ", "|").split("|"):
        error = check_content(name, words.encode(), len(words))
        assert error, words
        assert error.exit_code == 6
        assert check_content("notes.md", words.encode(), len(words)) is None


@each(
    ("url", "words"),
    [
        ("https://github.com/org/repo/blob/main/w.bin", "/raw/"),
        ("https://git.corp.example/org/repo/-/blob/main/w.bin", "/-/raw/"),
        ("https://www.dropbox.com/scl/fi/x/w.bin?rlkey=1&dl=0", "dl=1"),
        ("https://drive.google.com/file/d/1AbC/view", "confirm=t"),
        ("https://modelscope.cn/models/org/repo/summary", "resolve/master"),
        ("https://civitai.com/models/1/name", "download button"),
        ("https://zenodo.org/records/1", "download=1"),
        ("https://files.example/w.bin", "in a browser"),
        ("https://www.dropbox.com/scl/fi/x/w.bin?rlkey=1&dl=1", "in a browser"),
        ("https://drive.usercontent.google.com/download?id=1AbC&confirm=t", "in a browser"),
        ("https://modelscope.cn/models/org/repo/resolve/master/w.bin", "in a browser"),
        ("https://zenodo.org/records/1/files/w.bin?download=1", "in a browser"),
    ],
)
def test_a_page_about_a_file(url: str, words: str) -> None:
    """Of a link that was copied from a browser the hint says where the file itself is."""
    error = check_content("w.bin", PAGE, len(PAGE), url=url)
    assert error
    assert (error.exit_code, words in str(error.hint)) == (6, True)


def test_a_message_in_place_of_a_picture() -> None:
    """An API's error in place of a picture is refused; another text is not, for a picture is no model."""
    for name in ("samples/1.png", "voice.wav", "clip.mp4"):
        for message in (b'{"error": "not found"}', b'\n [{"detail": "expired"}]'):
            assert check_message(name, message, len(message)), (name, message)
        assert check_message(name, b"png", 3) is None
        assert check_message(name, b"\x89PNG\r\n\x1a\n", 8) is None
