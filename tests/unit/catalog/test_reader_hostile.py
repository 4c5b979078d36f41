"""Catalogs as hostile input: paths, addresses and digests that must not get through, and where a catalog comes from."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from support.catalogs import BAD_PATHS, mistakes, parse
from support.faulty_server import FaultyServer
from support.shell import ExitCode, machine

from mdl.paths import is_harmful_in_prose

SHA = "ab" * 32


def files(key: str, values: list[object]) -> str:
    """One model with a file for each value of ``key``."""
    head = "[[models.a.files]]\n" + ("" if key == "url" else 'url = "https://h/f"\n')
    return "".join(
        head + ("" if key == "path" else f'path = "f{n}"\n') + f"{key} = {json.dumps(value)}\n"
        for n, value in enumerate(values)
    )


@pytest.mark.fault(161, 162)
def test_paths_that_are_refused() -> None:
    """Every path that leaves its folder, or would on some platform, is a mistake of its own line, all told at once."""
    bad = [text for texts in BAD_PATHS.values() for text in texts if "\ud800" not in text]
    found = mistakes(files("path", [*bad, "x" * 300, "a\tb"]))
    assert len(found) == len(bad) + 2
    assert all(".path: " in line for line in found)
    assert not [line for line in found if any(map(is_harmful_in_prose, line))]


ADDRESSES = [
    *("file:///etc/passwd", "ftp://h/f", "data:,x", "ssh://h/f", "javascript:alert(1)", "gopher://h/f", "h/f", "//h/f"),
    *("HTTPS:x", "https:///f", "https://h:0/f", "https://h:99999/f", "https://h:-1/f", "https://h /f", "https://h/a b"),
    *("https://huggingf\u0430ce.co/a/f", "https://h\uff0eorg/f", "https://2130706433/f", "https://0x7f.1/f"),
    *("https://h\\@i/f", "https://u:canary@h/f", "https://canary@h/f", "https://${HF_TOKEN}/f"),
    *("https://h/a\x1b]0;x\x07", "https://h/\u202ef"),
]


@pytest.mark.fault(163, 166, 167)
@pytest.mark.parametrize("key", ["url", "mirrors", "source"])
def test_addresses_that_are_refused(key: str) -> None:
    """Other schemes, no host, odd ports and addresses, look-alikes, passwords: each a mistake, shown harmlessly."""
    if key == "source":
        text = "".join(f"[models.m{n}]\nsource = {json.dumps(url)}\n" for n, url in enumerate(ADDRESSES))
    else:
        text = files(key, [[url] for url in ADDRESSES] if key == "mirrors" else ADDRESSES)
    found = mistakes(text)
    assert len(found) == len(ADDRESSES)
    assert "canary" not in "".join(found)
    assert not [line for line in found if any(map(is_harmful_in_prose, line))]


DIGESTS = [
    *(SHA.upper(), f" {SHA}", f"{SHA}\n", SHA[:-1], f"{SHA}0", f"sha256:{SHA}", f"0x{SHA[2:]}", ""),
    *(SHA.replace("a", "\uff41"), "d41d8cd98f00b204e9800998ecf8427e", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    *(SHA * 2, 5, [SHA], True),
]


@pytest.mark.fault(181)
def test_digests_that_are_none() -> None:
    """Capitals, blanks, a prefix, one digit more or less, MD5, SHA-1, SHA-512: none is taken for a sha256."""
    found = mistakes(files("sha256", DIGESTS))
    assert len(found) == len(DIGESTS)
    assert all(".sha256: " in line for line in found)


@pytest.mark.fault(168)
def test_nothing_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable's name stays a name; there is no including of other files."""
    monkeypatch.setenv("SECRET", "canary")
    model = parse('[models.a]\ntitle = "$SECRET ${SECRET} %SECRET%"\nsource = "https://h/$SECRET/f"').models["a"]
    assert "canary" not in f"{model.title}{model.files}"
    assert mistakes('include = ["/etc/shadow"]\n[models]')[0].endswith("2: include: unknown key")


TIMES = 10 if os.environ.get("MDL_LONG") else 1
"""With MDL_LONG=1: 10 MB, a hundred thousand keys."""
LARGE = {
    "a title": '[models.a]\nsource = "hf:o/r"\ntitle = "' + "x" * 10**6 * TIMES + '"',
    "a key": "x" * 10**6 * TIMES + " = 1",
    "dotted keys": "".join(f"x-a.b{n}.c = 1\n" for n in range(10**4 * TIMES)),
    "deep tables": "".join("[" + ".".join(["x-a", *["b"] * n]) + "]\n" for n in range(1, 190)),
}


@pytest.mark.fault(165)
@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_large_texts(text: str) -> None:
    """A huge text is read, or is a short mistake; of ten times as much within seconds of processor time."""
    before = time.process_time()
    if "x-a" in text[:5]:
        parse(text)
    else:
        assert len("".join(mistakes(text))) < 500
    assert TIMES == 1 or time.process_time() - before < 5


@pytest.mark.fault(169)
@pytest.mark.parametrize("how", ["--catalog", "MDL_CATALOG"])
def test_a_catalog_at_an_address(exit_code: ExitCode, tmp_path: Path, how: str) -> None:
    """A catalog is a file: an address is 2, and no request is made."""
    with FaultyServer(lambda request, number: pytest.fail("it was asked for")) as server:
        url = f"{server.url}/catalog.toml"
        shell = machine(tmp_path, **({"MDL_CATALOG": url} if how == "MDL_CATALOG" else {}))
        assert exit_code(shell, "list", *(("--catalog", url) if how == "--catalog" else ())) == 2
        assert server.requests == []


@pytest.mark.fault(169)
def test_a_catalog_that_changes_meanwhile(tmp_path: Path) -> None:
    """What a run knows of a catalog is what it read once: another file under the name changes nothing of it."""
    from mdl.catalog.reader import read_catalog

    place = tmp_path / "c.toml"
    place.write_text('schema = 1\n[models.a]\nsource = "hf:o/r"')
    catalog = read_catalog([place])
    place.write_text("none")
    assert [str(origin) for origin in catalog.find("a")[0].sources] == ["hf:o/r"]


@pytest.mark.fault(170)
@pytest.mark.parametrize("whose", ["mine", "another's", "everybody's"])
def test_a_catalog_that_others_can_write(
    exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str], whose: str
) -> None:
    """A catalog that was found, not named, and that another user can write, is named in a warning; one's own is not."""
    if whose == "another's" and os.geteuid() != 0:
        pytest.skip("only root can give a file to somebody else: not tried")
    shell = machine(tmp_path)
    (tmp_path / "catalog.toml").chmod(0o666 if whose == "everybody's" else 0o644)
    if whose == "another's":
        os.chown(tmp_path / "catalog.toml", 65534, 65534)
    assert exit_code(shell, "list") == 0
    assert ("catalog.toml" in capfd.readouterr().err) == (whose != "mine")
    assert exit_code(shell, "list", "--catalog", "catalog.toml") == 0
    assert "warning" not in capfd.readouterr().err


@pytest.mark.fault(164, 183)
def test_markup_in_a_title(exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What others would read as markup, a formula, an element or a command is told as it is, and JSON is JSON."""
    words = [
        "[red]x[/]",
        "[/]",
        "=1+1",
        "<script>'\"</script>",
        "$(id) `id` ; |",
        "a, b",
        "\\n\\",
        "&amp; %s {0}",
        "سلام",
    ]
    titles = (json.dumps(word, ensure_ascii=False) for word in words)
    entries = (f'[models.m{n}]\nsource = "hf:o/r"\ntitle = {title}\n' for n, title in enumerate(titles))
    shell = machine(tmp_path, "schema = 1\n" + "".join(entries))
    assert exit_code(shell, "list", "--json") == 0
    out = capfd.readouterr().out
    assert [model["title"] for model in json.loads(out)["models"]] == words
    assert out.count("\n") == 1
    assert exit_code(shell, "list") == 0
    assert [line.split("  ")[-1].strip() for line in capfd.readouterr().out.splitlines()[1:]] == words
