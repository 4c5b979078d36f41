"""What is said of a server's faults: one line of cause, one of advice, one code, also in JSON (groups A to D)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import faults
from support.catalogs import catalog_of
from support.data import DATA
from support.faulty_server import FaultyServer, Handler
from support.shell import Inside, done, machine

SECRET = "s3cr3t-signature"
SIGNED = f"/signed?X-Amz-Signature={SECRET}"
GATED = ("X-Error-Code", "GatedRepo")
FAULTS: dict[str, tuple[Handler, int, str, str]] = {
    "a part for the whole": (faults.answers(206, ("Content-Range", "bytes 0-2/10")), 6, "PROTO", "a part of the file"),
    "other bytes": (faults.honest(faults.Flipped(DATA)), 6, "HASH", "wrong bytes"),
    "cut": (faults.short_body(DATA, 0), 5, "NET", "the connection ended after 0 of"),
    "another length": (faults.wrong_length(DATA, 5), 6, "PROTO", f"announces {len(DATA) + 5} bytes"),
    "endless": (faults.endless(framing="chunked"), 6, "HASH", "wrong bytes"),
    "two lengths": (faults.bad_length(DATA, "two headers"), 6, "PROTO", "Content-Length"),
    "heavy headers": (faults.many_headers(DATA, count=1, length=2**21), 6, "PROTO", "HTTP"),
    "no HTTP": (faults.garbage_status(DATA), 6, "PROTO", "HTTP"),
    "loop": (faults.loop(), 5, "NET", "more than 10 redirects"),
    "a file: URL": (faults.redirects("file:///etc/passwd"), 11, "UNSAFE", "scheme 'file' is not http or https"),
    "userinfo": (faults.redirects(f"http://me:{SECRET}@127.0.0.1:{{port}}/x"), 11, "UNSAFE", "user name or password"),
    "a foreign host": (faults.redirects(f"http://localhost:{{port}}/x?sig={SECRET}"), 11, "UNSAFE", "localhost"),
    "an odd address": (faults.redirects("http://2130706433:{port}/x"), 11, "UNSAFE", "odd spelling"),
    "an empty Location": (faults.redirects(""), 6, "PROTO", "Location"),
    "401": (faults.answers(401, ("X-Error-Message", "who are you?")), 4, "AUTH", "who are you?"),
    "gated": (faults.answers(403, GATED), 4, "AUTH", "403"),
    "407": (faults.answers(407), 4, "AUTH", "proxy"),
    "404": (faults.answers(404, body=b"\x1b[31mno such\x1b[0m\r\nfile"), 3, "NOTFOUND", "no such"),
    "410": (faults.answers(410), 3, "NOTFOUND", "410"),
    "503": (faults.answers(503, body=b"<html><title>back soon</title>"), 5, "NET", "back soon"),
    "a long wish": (faults.answers(429, ("Retry-After", "86400")), 5, "NET", "86400 s"),
    "signed and void": (
        faults.choose(lambda r: r.path == "/signed", faults.answers(403), faults.redirects(SIGNED)),
        *(4, "AUTH", "403"),
    ),
}


@pytest.mark.fault(5, 10, 25, 29, 30, 33, 34, 37, 45, 49, 50, 52, 54, 56, 57, 58, 59, 69)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_line_and_one_advice(tmp_path: Path, mdl: Inside, fault: str) -> None:
    """The last two lines: what failed, on what and why, then what to do; the same in JSON; no secret in either."""
    handler, code, name, words = FAULTS[fault]
    with FaultyServer(handler) as server:
        shell = machine(tmp_path, catalog_of(one=f"{server.url}/f"))
        ran = done(mdl(shell, "get", "one", "--retries", "1", "--json"), code)
    told = ran.document
    *_, said, hint = ran.err.splitlines()
    assert [line for line in ran.err.splitlines() if line.startswith("mdl:")] == [said]
    assert words in said
    assert hint.startswith("  hint: ")
    item = told["error"]["item"]
    assert (told["exit_code"], told["error"]["code"]) == (code, name)
    assert item == "one/f.bin" or (name == "UNSAFE" and item in said)  # a refused host is called by its name
    assert said == f"mdl: {item}: {told['error']['message']}"
    assert SECRET not in ran.err + ran.out
    assert "\x1b" not in ran.err
    assert not (shell.models / "one" / "f.bin").exists()


@pytest.mark.fault(38, 39)
@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (faults.portal("Hotel \x1b[31mWi-Fi: log in"), "Wi-Fi: log in"),
        (faults.lfs_pointer("ab" * 32, len(DATA)), "lfs"),
    ],
    ids=["page", "pointer"],
)
def test_the_message_says_what_came_instead(tmp_path: Path, mdl: Inside, handler: Handler, words: str) -> None:
    """A page in a file's place is named by its title, made harmless, and a git-lfs pointer as such."""
    with FaultyServer(handler) as server:
        ran = done(mdl(machine(tmp_path, catalog_of(one=f"{server.url}/f")), "get", "one", "--retries", "1"), 6)
    assert words in ran.err
    assert "\x1b" not in ran.err
