"""What is on this disk: ``list --local``, ``list`` and ``show`` in both layouts, groups, other hubs, and what the hub
says with ``show --remote``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data import MIB, noise
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hf_cache import Hf, cache_of, listing
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Ran, Shell, done, machine, with_environ, write_catalog
from support.terminal import Screen, Terminal

import mdl as library
from mdl.cli.model_table import COLUMNS

WEIGHTS = noise(2 * MIB, 1)
TINY = Repo("org/tiny", {"config.json": b"{}", "model.bin": WEIGHTS})
OTHER = Repo("org/other", {"a.bin": noise(MIB, 2), "b.json": b"[]"})
HELD = Repo("org/held", {"x.bin": noise(2000, 3)})
GATED = Repo("org/gated", {"w.bin": noise(5000, 4)}, gated=True)
CATALOG = """schema = 1
[models.tiny]
title = "Tiny"
source = "hf:org/tiny"
[models.absent]
source = "hf:org/absent"
[groups]
nightly = ["tiny", "absent"]
"""
NAMED = """schema = 1
[[models.absent.files]]
path = "a.bin"
url = "https://h.example/a.bin"
"""
CACHE = ("--layout", "hf-cache")
REPOS = [TINY, OTHER, HELD, GATED]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


@pytest.fixture
def full(shell: Shell, server: FaultyServer, mdl: Inside, hf: Hf) -> Shell:
    """A disk with models of every origin: of the catalog, of references, of the hub's client, of nobody."""
    server.handler = honest(b"from a ur\0")
    done(mdl(shell, "get", "tiny", "hf:org/other"))
    done(mdl(shell, "get", f"{server.url}/files/direct.bin"))
    done(mdl(shell, "get", "hf:org/tiny", *CACHE))
    hf("snapshot", repo_id="org/held", cache_dir=cache_of(shell), endpoint=shell.endpoint)
    (shell.models / "mine" / "deep").mkdir(parents=True)
    (shell.models / "mine" / "deep" / "x.bin").write_bytes(b"12345")
    return shell


def local(ran: Ran) -> dict[str, tuple[str, str, str, int]]:
    """Every model: its layout, status, who brought it, and its bytes."""
    keys = ("layout", "status", "brought_by", "bytes_present")
    return {one["name"]: tuple(one[key] for key in keys) for one in done(ran).document["models"]}


def test_everything_is_listed(full: Shell, mdl: Inside) -> None:
    """Each model of either layout, with its size, commit, and where it is; path and show know them all by that name."""
    ran = mdl(full, "list", "--local", "--json")
    found = local(ran)
    direct = next(name for name in found if name.startswith("127.0.0.1"))
    tiny = len(WEIGHTS) + 2
    assert found == {
        "tiny": ("plain", "present", "mdl", tiny),
        "org--other": ("plain", "present", "mdl", MIB + 2),
        direct: ("plain", "unverified", "mdl", 10),
        "mine": ("plain", "unverified", "other", 5),
        "hf:org/tiny": ("hf-cache", "present", "mdl", tiny),
        "hf:org/held": ("hf-cache", "unverified", "hub-client", 2000),
    }
    rows = {one["name"]: one for one in ran.document["models"]}
    assert (rows["org--other"]["source"], rows["org--other"]["commits"]) == ("hf:org/other@main", [OTHER.commit])
    assert rows["hf:org/held"]["commits"] == [HELD.commit]
    for name, row in rows.items():
        assert Path(row["path"]).exists(), name
        assert row["since"] or name == "mine"
        if name not in ("mine", "hf:org/tiny"):
            assert done(mdl(full, "path", name)).out == f"{row['path']}\n"
            shown = done(mdl(full, "show", name, "--json")).document
            assert shown["model"]["status"] == row["status"]
            assert len(shown["files"]) == row["files_present"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--local", *CACHE), {"hf:org/tiny", "hf:org/held"}),
        (CACHE, {"tiny", "absent"}),
        (("--local", "--layout", "plain", "org"), {"org--other"}),
        (("--local", "held"), {"hf:org/held"}),
        (("--local", "nightly"), {"tiny"}),
        (("nightly",), {"tiny", "absent"}),
        (("--present",), {"tiny"}),
    ],
)
def test_which_are_listed(full: Shell, mdl: Inside, words: tuple[str, ...], names: set[str]) -> None:
    """Without --local it is the catalog, in whatever layout; patterns and groups narrow every list."""
    assert set(local(mdl(full, "list", *words, "--json"))) == names


def test_the_total_counts_bytes_once(full: Shell) -> None:
    """What has two names on the disk takes its room once."""
    client = library.Client(home=full.models, catalog=full.home / "catalog.toml")
    before = client.inventory()
    os.link(full.models / "tiny" / "model.bin", full.models / "mine" / "again.bin")
    after = client.inventory()
    assert (after.bytes, before.bytes) == (before.bytes, len(WEIGHTS) + 2 + MIB + 2 + 10 + 5)
    assert sum(found.bytes_present for _, found in after.models) == before.bytes + len(WEIGHTS)


def test_lists_write_nothing(full: Shell, mdl: Inside) -> None:
    """To look changes nothing, in neither layout."""
    places = (full.models, cache_of(full))
    before = [listing(place) for place in places]
    for words in ("list", "list --local", "show tiny", "show hf:org/held", "path org--other", "rm tiny", "clean"):
        done(mdl(full, *words.split()))
    assert [listing(place) for place in places] == before


def test_another_hub(full: Shell, mdl: Inside) -> None:
    """A model is judged by what is on the disk, whichever hub is set now; the same without the kept listing."""
    away = with_environ(full, HF_ENDPOINT="http://127.0.0.1:9")
    rows = {one["name"]: one for one in done(mdl(away, "list", "--json")).document["models"]}
    assert (rows["tiny"]["status"], rows["tiny"]["files"], rows["tiny"]["files_present"]) == ("present", 2, 2)
    (full.models / "tiny" / "model.bin").unlink()
    assert mdl(away, "show", "tiny", "--json").document["model"]["status"] == "partial"
    for kept in (full.models / ".mdl" / "listings").iterdir():
        kept.unlink()
    assert mdl(away, "show", "org--other", "--json").document["model"]["status"] == "present"
    assert mdl(away, "show", "hf:org/other", "--json").document["model"]["status"] == "present"


def test_order_and_groups(full: Shell, mdl: Inside) -> None:
    """--sort orders what is shown; the groups are in the document and in the last line."""
    names = {
        sort: [one["name"] for one in mdl(full, "list", "--local", "--sort", sort, "--json").document["models"]]
        for sort in ("name", "size", "status")
    }
    assert names["name"] == sorted(names["name"])
    assert set(names["size"][:2]) == {"tiny", "hf:org/tiny"}
    assert names["size"][-1] == "mine"
    assert set(names["status"][:3]) == {"tiny", "org--other", "hf:org/tiny"}
    ran = done(mdl(full, "list"))
    assert ran.err.startswith("2 models, 1 here (2.1 MB); groups: nightly\n")
    assert "org--other" in done(mdl(full, "show", "org--other")).out
    assert mdl(full, "list", "--json").document["groups"] == [{"name": "nightly", "models": ["tiny", "absent"]}]
    shown = done(mdl(full, "show", "nightly", "--json")).document
    assert (shown["group"], [one["name"] for one in shown["members"]]) == ("nightly", ["tiny", "absent"])
    assert "tiny" in done(mdl(full, "show", "nightly")).out


def test_columns(full: Shell, mdl: Inside) -> None:
    """A table has the columns that are asked for, in their order."""
    words = ("list", "--local", "org--other", "--columns", "Size, name,commit")
    head, row = done(mdl(full, *words)).out.splitlines()
    assert (head.split(), row.split()[2:]) == (["SIZE", "NAME", "COMMIT"], ["org/other", OTHER.commit[:7]])
    assert (
        done(mdl(full, "list", "--local", "org/other", "--columns", "name")).out.splitlines()[1].strip() == "org/other"
    )
    assert done(mdl(full, "list", "tiny", "--columns", ",".join(COLUMNS))).out.split()[: len(COLUMNS)] == [
        name.upper() for name in COLUMNS
    ]
    for sort in COLUMNS:
        done(mdl(full, "list", "--local", "--sort", sort))
    for flag in ("--columns=name,licence", "--sort=licence"):
        said = done(mdl(full, "list", flag), 2).err
        assert said.startswith("mdl: licence: no such column\n  hint: did you mean license? the columns: name, kind,")


def test_a_size_that_nobody_published(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """The list has the size on the disk if there is no other."""
    server.handler = honest(b"x\0" * 750)
    write_catalog(shell, f'schema = 1\n[models.one]\n[[models.one.files]]\npath = "f"\nurl = "{server.url}/f"\n')
    assert done(mdl(shell, "list")).out.split()[-4:] == ["missing", "-", "-", "-"]
    done(mdl(shell, "get", "one"))
    assert "unverified  1.5 kB" in done(mdl(shell, "list")).out


def test_show_tells_the_commits(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """What is wanted, what is here and what is locked; how much is here; git digests; and the whole command if a
    reference was never fetched."""
    done(mdl(shell, "lock", "tiny"))
    done(mdl(shell, "get", "tiny"))
    (shell.models / "tiny" / "config.json").unlink()
    document = done(mdl(shell, "show", "tiny", "--json")).document
    assert (document["revision"], document["locked_commits"]) == ("main", [TINY.commit])
    assert document["model"]["commits"] == [TINY.commit]
    assert document["files"][0]["digest"] == f"git-sha1:{TINY.stored['config.json'].digest.hex}"
    text = done(mdl(shell, "show", "tiny")).out
    assert f"here:     {len(WEIGHTS) / 1e6:.1f} MB of " in text
    assert f"locked:   {TINY.commit}" in text
    told = done(mdl(shell, "show", "hf:org/held"))
    assert told.err == "its files were never listed: 'mdl show --remote hf:org/held' asks the hub\n"
    write_catalog(shell, 'schema = 1\n[models.old]\nsource = "hf:org/old"\ngone = "moved"\n')
    assert "status:   gone" in done(mdl(shell, "show", "old")).out


def test_show_remote(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """The hub is asked for files, sizes and access; no file is fetched. Unknown is 3, offline is 8."""
    document = done(mdl(shell, "show", "--remote", "hf:org/gated", "--json")).document
    assert document["remote"] == {
        "commit": GATED.commit,
        "license": None,
        "is_gated": True,
        "is_private": False,
        "updated_at": "2026-01-01T00:00:00.000Z",
    }
    assert [(file["path"], file["size"], file["status"]) for file in document["files"]] == [("w.bin", 5000, "missing")]
    assert "access:   gated" in done(mdl(shell, "show", "--remote", "hf:org/gated")).out
    assert hub.sent == 0
    done(mdl(shell, "show", "--remote", "hf:org/nobody"), 3)
    done(mdl(with_environ(shell, HF_HUB_OFFLINE="1"), "show", "--remote", "hf:org/gated"), 8)


CHOSEN = "--columns name,title,status"
LONG = [f"model-{number:03}-sdxl-lora-very-long-name-of-a-thing" for number in range(60)]


@pytest.mark.parametrize(
    ("words", "columns"),
    [*(("list", columns) for columns in (40, 80, 120, 200)), (f"list {CHOSEN}", 60), ("list --local", 80)],
)
def test_one_line_a_model(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, exit_code: Callable[..., int], columns: int, words: str
) -> None:
    """At any width each model has one line, no wider than the terminal. Its name is whole from 80 columns on;
    statuses have a colour, and sizes stand at the right."""
    entries = "".join(
        f'[[models.{name}.files]]\npath = "f"\nurl = "http://127.0.0.1:9/f"\nsize = {10**n}\n[models.{name}]\n'
        f'title = "{"a title of many words " * 5}"\nkind = "checkpoint-of-a-lora"\nlicense = "cc-by-nc-sa-4.0"\n'
        for n, name in ((number % 12, name) for number, name in enumerate(LONG))
    )
    write_catalog(shell, f"schema = 1\n{_tables_first(entries)}")
    for name in LONG:
        (shell.models / name).mkdir(parents=True)
        (shell.models / name / "f").write_bytes(b"x")
    seen = Terminal(columns)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", seen.file)
        shell = with_environ(shell, TERM="xterm", NO_COLOR="")
        assert exit_code(shell, *words.split()) == 0
    text = seen.text()
    rows = [row for row in Screen(text).rows if row.startswith("model-")]
    names = sorted(row.split()[0] for row in rows)
    assert columns < 80 or names == LONG
    assert all(name.startswith(shown.rstrip("…")) for name, shown in zip(LONG, names, strict=True))
    assert Screen(text).widest <= columns
    assert "\x1b[33munverified\x1b[0m" in text or "\x1b[2mmissing\x1b[0m" in text
    assert columns < 200 or words != "list" or all("a title of many words" in row for row in rows)


def _tables_first(entries: str) -> str:
    """TOML wants a table before the arrays in it."""
    lines = entries.splitlines()
    blocks = [lines[at : at + 8] for at in range(0, len(lines), 8)]
    return "\n".join(line for block in blocks for line in (*block[4:], *block[:4]))


def test_what_a_download_left(shell: Shell, hub: LoopbackHub, mdl: Inside) -> None:
    """A repository that was asked for whole and came in part is partial, until the rest is here: verify and outdated
    name what is missing. One of which a single file was asked for is whole with that file."""
    files = {"config.json": b"{}", "w.bin": WEIGHTS[:5000]}
    hub.publish(Repo("org/half", files, gated=True))
    done(mdl(shell, "get", "tiny"))
    done(mdl(shell, "get", "hf:org/other", "--include", "b.json"))
    done(mdl(shell, "get", "hf:org/half"), 4)  # its config.json is copied from the other model
    found = local(mdl(shell, "list", "--local", "--json"))
    assert {name: row[1] for name, row in found.items()} == {
        "tiny": "present",
        "org--other": "present",
        "org--half": "partial",
    }
    assert "partial 1/2" in mdl(shell, "list", "--local").out
    ran = done(mdl(shell, "verify"), 3)
    assert ("missing  org/half/w.bin" in ran.out, "hint: mdl verify org/half --repair" in ran.err) == (True, True)
    assert "hint: mdl get absent downloads it" in done(mdl(write_catalog(shell, NAMED), "verify", "absent"), 3).err
    write_catalog(shell, CATALOG)
    again = f"mdl verify --repair --to={shell.models} org/half"  # as it was typed, to be typed again
    assert f"hint: {again} fetches" in done(mdl(shell, "verify", "org/half", "--to", str(shell.models)), 3).err
    (half,) = done(mdl(shell, "outdated", "org--half", "--json")).document["models"]
    assert [one["path"] for one in half["changes"]] == ["w.bin"]
    hub.publish(Repo("org/half", files))
    done(mdl(shell, "verify", "org--half", "--repair"))
    done(mdl(shell, "get", "hf:org/half"))
    assert local(mdl(shell, "list", "--local", "--json"))["org--half"][1] == "present"
    assert list((shell.models / ".mdl" / "wanted").iterdir()) == []


def test_what_the_list_leaves_out(shell: Shell, mdl: Inside) -> None:
    """The catalog's list says how many models are here that no catalog names; one that has nothing to show says where
    to look, and shows no table; groups are named only beside the whole catalog."""
    assert "no catalog names" not in done(mdl(shell, "list")).err
    done(mdl(shell, "get", "hf:org/other", "hf:org/tiny"))
    assert done(mdl(shell, "list")).err == (
        "2 models, none here; groups: nightly\n2 more models on this disk that no catalog names: 'mdl list --local'\n"
    )
    nothing = done(mdl(shell, "list", "--kind", "nope"))
    assert (nothing.out, "'mdl list --local'" in nothing.err) == ("", True)
    assert done(mdl(shell, "list", "tiny")).err == "1 model, none here\n"
    (shell.home / "catalog.toml").write_text("schema = 1\n")
    assert done(mdl(shell, "list")).err.endswith("\n2 models on this disk that no catalog names: 'mdl list --local'\n")
