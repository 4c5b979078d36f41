"""Catalogs as text, right and wrong, and what the reader says about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdl.catalog.model import Catalog
from mdl.catalog.reader import parse_catalog
from mdl.errors import CatalogError
from support.data import DATA, sha256

CATALOG_FILE = Path("catalog.toml")
BAD_PATHS = {
    "empty": ["", "/", "a/", "a//b", "/a", "//a/b"],
    "dots": [".", "..", "../a", "a/../b", "a/./b", "a/..", "./a"],
    "trailing": ["a.", "a ", "a./b", "dir /b", "a/..."],
    "drives and backslashes": ["C:", "c:/x", "C:x", "a\\b", "\\\\host\\share\\x", "a/d:/b", "\\"],
    "streams": ["a::$DATA", "ab::$DATA", "ab:x:$data", "a/bc::$INDEX_ALLOCATION/d", "ab:$I30:$INDEX_ALLOCATION"],
    "home": ["~", "~root/x", "a/~b"],
    "reserved": ["CON", "nul.txt", "COM1", "lpt9.tar.gz", "a/aux", "prn .txt", "CONOUT$", "com¹"],
    "hidden": [
        "a\0b",
        "a\nb",
        "a\rb",
        "a\x1b[31m",
        "a\x7f",
        "a\x85",
        "a\u202eb",
        "a\u200bb",
        "\ufeffa",
        "a\u2028",
        "a\ud800",
    ],
    "mdl's own": [".mdl", ".mdl/x", ".MDL/x"],
    "too long": ["x" * 256, "é" * 128, "/".join(["a" * 200] * 6), "/".join("a" * 65)],
}


NEVER_KEPT = {
    "nothing": ["", "/", "a/", "a//b", "/a", "//a/b"],
    "dots": [".", "..", "../a", "a/../b", "a/./b", "a/..", "./a"],
    "controls": ["a\0b", "a\nb", "a\rb", "a\x1b[31m", "a\x7f", "a\x85", "a\ud800"],
    "mdl's own": [".mdl", ".mdl/x"],
    "too long": ["x" * 256, "é" * 128, "a/" + "x" * 256, "/".join(["a" * 200] * 30)],
}
"""Names that a repository of the hub may have, and no file of this system."""

ODD_NAMES = {
    "other systems'": [
        "a.",
        "a ",
        "dir /b.",
        "C:",
        "c:/x",
        "a\\b",
        "\\\\host\\share",
        "a::$DATA",
        "CON",
        "nul.txt",
        "com¹",
    ],
    "shells'": [
        "~",
        "~root/x",
        "-rf",
        "$HOME",
        'a*?"<b>|c',
        "#x",
        "a%2Fb",
        "%2e%2e",
        "a?b=c&d",
        "x;y",
        "'q'",
        "[red]x[/red]",
    ],
    "scripts'": [
        "مدل.bin",
        "می\u200cخواهم.txt",
        "a\u202eb",
        "a\u200bb",
        "\ufeffa",
        "a\u2028b",
        "日本語.json",
        "e\u0301",
    ],
    "nearly mdl's own": [".mdlx/y", "a/.mdl/x", " .mdl/x"],
    "long": ["x" * 255, "é" * 127, "/".join(["a" * 200] * 6), "/".join("a" * 65)],
    "versions'": ["a@b", "refs/x", "a@main/b", "a:Q8_0", "resolve/main/x", "..a/b", "...", "a../b"],
}
"""Names that people upload to the hub, and that can be kept on this system as they are."""


def catalog_of(data: bytes = DATA, /, **urls: str) -> str:
    """A catalog of one model for each URL; its file ``f.bin`` is ``data``, and known to be."""
    return "schema = 1\n" + "".join(entry_of(name, url, data) for name, url in urls.items())


def entry_of(name: str, url: str, data: bytes = DATA) -> str:
    """A model whose one file is known by the size and the digest of ``data``."""
    facts = f'size = {len(data)}\nsha256 = "{sha256(data)}"\n'
    return f'[models.{name}]\n[[models.{name}.files]]\npath = "f.bin"\nurl = "{url}"\n{facts}'


def unpinned(url: str) -> str:
    """A catalog whose model ``one`` has a file of which only the URL is known."""
    return f'schema = 1\n[models.one]\n[[models.one.files]]\npath = "f.bin"\nurl = "{url}"\n'


def parse(text: str) -> Catalog:
    return parse_catalog("schema = 1\n" + text, CATALOG_FILE)


def mistakes(text: str) -> list[str]:
    """The mistakes in a text, without the line that counts them."""
    with pytest.raises(CatalogError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    lines = caught.value.message.split("\n")
    if len(lines) > 1:
        assert lines.pop(0) == f"{len(lines)} mistakes in the catalog:"
    return lines
