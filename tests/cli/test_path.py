"""Where a model is: the last line of `mdl get`, `mdl path`, and what `mdl.get` returns."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Ran, Shell, done, machine

import mdl as library

REPOS = [
    Repo("org/tiny", {"config.json": b"{}\n", "model.bin": b"weights", "sub/vocab.txt": b"v"}),
    Repo("org/quants", {"m-Q4_0.gguf": b"GGUF" + b"4" * 99, "m-Q8_0.gguf": b"GGUF" + b"8" * 99}),
]
CATALOG = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n[models.one]\nsource = "hf:org/tiny/config.json"\n'
LAYOUTS = ["plain", "hf-cache"]

Get = Callable[..., Ran]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path, CATALOG, hub.url)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize(
    ("words", "content"),
    [
        (["org/tiny", "config.json"], b"{}\n"),
        (["org/tiny", "sub/vocab.txt"], b"v"),
        (["hf:org/tiny@main/model.bin"], b"weights"),
        (["org/quants:Q8_0"], b"GGUF" + b"8" * 99),
    ],
)
def test_the_last_line_is_the_one_file(
    mdl: Inside, shell: Shell, layout: str, words: list[str], content: bytes
) -> None:
    """A file that was asked for by itself is the last line of get, when it is fetched and when it is kept; --json has
    the folder too; `path --file` prints the same line."""
    at = ["--layout", layout]
    for _ in ("fetched", "kept"):
        ran = done(mdl(shell, "get", *words, *at))
        place = Path(ran.out.removesuffix("\n"))
        assert place.read_bytes() == content
        [model] = done(mdl(shell, "get", *words, *at, "--json")).document["models"]
        assert (model["file"], Path(model["path"])) == (
            str(place),
            place.parents[len(model["files"][0]["path"].split("/")) - 1],
        )
    reference = words[0] if len(words) == 1 else f"hf:{words[0]}@main/{words[1]}"
    assert done(mdl(shell, "path", "--file", reference, *at)).out == ran.out
    assert done(mdl(shell, "path", reference, *at)).out == f"{model['path']}\n"


def test_a_url_an_output_and_a_folder(mdl: Inside, shell: Shell, hub: LoopbackHub) -> None:
    """The same holds for a URL, for -o and for --into; several files, several targets and an entry of the catalog end
    with folders."""
    url = f"{hub.url}/org/tiny/resolve/main/model.bin"
    page = done(mdl(shell, "get", url)).out
    assert Path(page.strip()).name == "model.bin"
    assert done(mdl(shell, "get", url, "-o", "x/y.bin", "--into", "out")).out == f"{shell.home / 'out/x/y.bin'}\n"
    digest = hashlib.sha256(b"weights").hexdigest()
    other = f"{hub.url}/org/tiny/resolve/main/model.bin?download=true#sha256={digest}"
    assert done(mdl(shell, "get", other, "--into", "there")).out == f"{shell.home / 'there/model.bin'}\n"
    two = done(mdl(shell, "get", "org/tiny", "config.json", "model.bin")).out
    assert two == f"{shell.models / 'org--tiny'}\n"
    both = done(mdl(shell, "get", "hf:org/tiny@main/config.json", "hf:org/quants@main/m-Q4_0.gguf")).out
    assert both.splitlines() == [str(shell.models / "org--tiny"), str(shell.models / "org--quants")]
    assert done(mdl(shell, "get", "one")).out == f"{shell.models / 'one'}\n"
    assert done(mdl(shell, "get", "org/tiny", "sub")).out == f"{shell.models / 'org--tiny'}\n"
    planned = done(mdl(shell, "get", "-n", "org/tiny", "config.json", "--json")).document["models"]
    assert planned[0]["file"] == str(shell.models / "org--tiny/config.json")


def test_get_returns_the_same_path(
    shell: Shell, hub: LoopbackHub, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", shell.environ)
    assert library.get("hf:org/tiny@main/config.json", layout=layout).read_bytes() == b"{}\n"
    folder = library.get("hf:org/tiny", layout=layout)
    assert (folder / "model.bin").read_bytes() == b"weights"
    client = library.Client(layout=layout)
    assert client.path("hf:org/tiny") == folder
    assert client.path("hf:org/tiny@main/model.bin", file=True) == folder / "model.bin"


def test_what_is_not_here_has_no_path(mdl: Inside, shell: Shell, layout: str) -> None:
    """3, and nothing on stdout: of a name that nobody knows, of one that was never fetched, of a file that is not
    here; 2 with the list if there are several files."""
    at = ["--layout", layout]
    for name in ("no/such", "nosuch", "tiny", "hf:org/tiny", "one"):
        assert done(mdl(shell, "path", name, *at), 3).out == ""
        assert done(mdl(shell, "path", name, *at, "--json"), 3).document["path"] is None
    done(mdl(shell, "get", "tiny", *at))
    if layout == "plain":
        assert done(mdl(shell, "path", "tiny")).out == f"{shell.models / 'tiny'}\n"
    ran = done(mdl(shell, "path", "tiny", "--file", *at), 2)
    assert ran.out == ""
    for name in ("config.json", "model.bin", "sub/vocab.txt"):
        assert name in ran.err
    assert ran.err.endswith(f"hint: take the folder: mdl path tiny --layout {layout}\n")
    done(mdl(shell, "get", "org/tiny", *at))
    assert (
        f"name one of them: mdl path --file hf:org/tiny/PATH --layout {layout}; or"
        in done(mdl(shell, "path", "org/tiny", "--file", *at), 2).err
    )


def test_a_reference_means_the_same_with_and_without_hf(mdl: Inside, shell: Shell, layout: str) -> None:
    """Of a repository of which one file was asked for, both spellings show the same files, and both have a path."""
    at = ["--layout", layout]
    done(mdl(shell, "get", "org/tiny", "config.json", *at))
    shown = [done(mdl(shell, "show", name, "--json", *at)).document for name in ("org/tiny", "hf:org/tiny")]
    assert shown[0] == shown[1]
    assert (shown[0]["model"]["status"], shown[0]["model"]["files_present"]) == ("partial", 1)
    assert done(mdl(shell, "path", "org/tiny", *at)).out == done(mdl(shell, "path", "hf:org/tiny", *at)).out


def test_what_is_partly_here_has_no_path(mdl: Inside, shell: Shell, layout: str) -> None:
    """3, and nothing on stdout, once a file of what was fetched is gone; a file of it that is here has its path still.
    A part that was asked for as such is whole."""
    at = ["--layout", layout]
    [folder] = done(mdl(shell, "get", "tiny", *at)).out.splitlines()
    done(mdl(shell, "get", "org/tiny", "config.json", *at))
    assert done(mdl(shell, "path", "org/tiny", *at)).code == 0
    for words in (["tiny"], ["tiny", "--file"]):
        Path(folder, "model.bin").unlink(missing_ok=True)
        ran = done(mdl(shell, "path", *words, *at), 3)
        assert (ran.out, ran.err.splitlines()) == (
            "",
            [
                "mdl: tiny: only partly on this disk: 2 of 3 files",
                f"  hint: 'mdl get tiny --layout {layout}' downloads the rest",
            ],
        )
    assert done(mdl(shell, "path", "hf:org/tiny/config.json", *at)).code == 0


@pytest.mark.parametrize(
    "places", ["", "--layout hf-cache", "--to 'a b'", "--to 'a b' --layout hf-cache --catalog own"]
)
@pytest.mark.parametrize("words", ["path tiny", "path org/tiny", "verify tiny", "verify org/tiny"])
def test_the_hint_leads_to_the_same_place(mdl: Inside, shell: Shell, words: str, places: str) -> None:
    """The command of the hint, as it stands, has the flags that say where models are, so that it helps."""
    (shell.home / "own").write_text((shell.home / "catalog.toml").read_text())
    typed = shlex.split(f"{words} {places}")
    command = re.search(r"mdl (get [^\n]*?)(' downloads it)?$", done(mdl(shell, *typed), 3).err, re.M)
    assert command
    done(mdl(shell, *shlex.split(command[1])))
    done(mdl(shell, *typed))


@pytest.mark.parametrize("words", ["list 'no such'", "rm org/none", "rm none", "mv --to elsewhere none"])
def test_a_list_of_the_same_place(mdl: Inside, shell: Shell, words: str) -> None:
    """Whoever looks for what is in a folder is shown that folder."""
    at = [] if "--to" in words else ["--to", "a b"]
    ran = mdl(shell, *shlex.split(words), *at)
    assert f"mdl {shlex.join(['list', '--local', *at])}'" in ran.err


@pytest.mark.parametrize(
    "reference", ["org/tiny@v9", f"hf:org/tiny@{'0' * 40}", "hf:org/tiny/other.bin", "org/quants:Q8_0"]
)
def test_another_part_of_a_repository_is_not_what_was_asked_for(
    mdl: Inside, shell: Shell, layout: str, reference: str
) -> None:
    """A revision, a file or a quantisation that is not here has no path, though another one of the same repository is
    here; neither has `mdl show` anything of it."""
    at = ["--layout", layout]
    done(mdl(shell, "get", "org/tiny", "config.json", *at))
    done(mdl(shell, "get", "org/quants:Q4_0", *at))
    for places in ([], at):
        assert done(mdl(shell, "path", reference, *places), 3).out == ""
        assert done(mdl(shell, "show", reference, "--json", *places)).document["model"]["status"] == "missing"


def test_what_show_counts(mdl: Inside, shell: Shell) -> None:
    """Of a model that is not here show --remote has no status of its files, and a last line with their number and size;
    a list has the name as people type it."""
    ran = done(mdl(shell, "show", "--remote", "hf:org/tiny"))
    assert "STATUS" not in ran.out
    assert ran.err.endswith("3 files, 11 B\n")
    done(mdl(shell, "get", "org/tiny"))
    assert "STATUS" in done(mdl(shell, "show", "--remote", "hf:org/tiny")).out
    assert done(mdl(shell, "list", "--local")).out.splitlines()[1].split()[0] == "org/tiny"
