"""What came instead of a file is never a model, and a right file is never refused."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import Bench
from support.data import MIB, noise
from support.faults import honest

from mdl.engine.content_check import check_content

LARGE = 3 * MIB
PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Accept our terms</body></html>"
CAPTIVE = b"<html>login please</html>"
SIGN_IN = b'<html><head><title>Hello</title></head><form action="/in"><input name=p type="password"></form>'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
HEADER = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + b"abcd"
ONNX = b"\x08\x07\x12\x07pytorch\x1a\x032.1"
RIGHT = {
    "model.gguf": b"GGUF\x03\x00\x00\x00",
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
}


@pytest.mark.fault(259)
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("content_type", ["", "text/html; charset=utf-8", "application/octet-stream"])
def test_a_right_file_is_never_refused(name: str, content_type: str) -> None:
    """The bytes decide, whatever type the server says."""
    assert check_content(name, RIGHT[name], len(RIGHT[name]), content_type=content_type) is None


@pytest.mark.fault(259)
@pytest.mark.parametrize(
    ("name", "body", "more", "exit_code"),
    [
        ("model.gguf", CAPTIVE, {}, 6),
        ("model.bin", PAGE, {}, 6),
        ("config.json", b"\xef\xbb\xbf\n" + PAGE, {}, 6),
        ("12345", PAGE, {}, 6),
        ("model.pt", SIGN_IN, {}, 4),
        ("model.pt", b"<html><head><title>Sign in \xc2\xb7 Example</title>", {}, 4),
        ("model.pt", b"<html><title>Log in</title>", {}, 4),
        ("model.pt", PAGE, {"url": "https://id.example.org/login?next=x"}, 4),
        ("model.bin", b"Please sign in to the network.\n", {"content_type": "text/html"}, 6),
        ("model.safetensors", POINTER, {}, 6),
        ("config.json", POINTER, {}, 6),
        ("model.gguf", b"GGML\x03\x00", {}, 6),
        ("model.gguf", b"", {}, 6),
        ("MODEL.GGUF", b'{"error": "no"}', {}, 6),
        ("model.safetensors", b'{"error": "quota"}', {}, 6),
        ("model.safetensors", struct.pack("<Q", 2**40) + HEADER, {}, 6),
        ("model.safetensors", SAFETENSORS[:8], {}, 6),
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
