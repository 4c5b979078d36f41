"""Bucket mounts: a file that is written in order, once, and then has its name. Nothing else is to be had there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench
from support.data import files_below, flip, noise
from support.limited_mounts import limited_mount
from support.long import LONG
from support.loopback_hub import LoopbackHub, Repo
from support.partials import dead_owner
from support.shell import Inside, Shell, done, machine, with_environ

from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.paths import RelPath

WEIGHTS, OTHER = noise(20_000_000), noise(10_000_000, seed=2)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "other.safetensors": OTHER, "vocab.txt": b"a\nb\n"}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub([Repo("org/repo", FILES, lfs_threshold=1000)]) as hub:
        yield hub


def shell_on(disk: Path, tmp_path: Path, hub: LoopbackHub) -> Shell:
    return with_environ(machine(tmp_path / "home", endpoint=hub.url), MDL_HOME=str(disk / "models"))


KINDS = [("in-order",), ("in-order", "cuts"), ("in-order", "write-only"), ("in-order", "bare"), ("in-order", "closed")]
WAYS = {"many": (), "one": ("--connections", "1"), "cache": ("--layout", "hf-cache")}
TRIED = [
    pytest.param(kind, words, id=f"{' '.join(kind)}, {way}")
    for kind in KINDS
    for way, words in WAYS.items()
    if LONG or way == "many" or len(kind) == 1
]


@pytest.mark.parametrize(("kind", "words"), TRIED)
def test_every_file_comes(
    tmp_path: Path, hub: LoopbackHub, mdl: Inside, words: tuple[str, ...], kind: tuple[str, ...]
) -> None:
    """It is 0 with one warning; a second run fetches nothing, and what is there can be verified and removed."""
    with limited_mount(tmp_path, *kind) as disk:
        shell = with_environ(shell_on(disk, tmp_path, hub), HF_HUB_CACHE=str(disk / "hub"))
        ran = done(mdl(shell, "get", "org/repo", *words))
        times = ran.err.count("one connection per file, and a broken download starts again")
        # a disk that can cut files is noticed by a write out of order, and all may have come in order
        assert times == 1 or (times == 0 and "cuts" in kind), ran.err
        if "hf-cache" not in words:
            assert files_below(disk / "models" / "org--repo") == FILES
        layout = words if "hf-cache" in words else ()
        again = done(mdl(shell, "get", "org/repo", "--json", *layout)).document
        assert {row["action"] for row in again["models"][0]["files"]} == {"kept"}
        done(mdl(shell, "verify", "hf:org/repo", "--strict", *layout))
        done(mdl(shell, "get", "org/repo", "vocab.txt", "--force", *layout))
        done(mdl(shell, "rm", "hf:org/repo", "--yes", *layout))


def small(count: int) -> dict[str, bytes]:
    return {f"{number}.txt": b"%d" % number for number in range(count)}


def test_records_are_written_whole(tmp_path: Path, mdl: Inside) -> None:
    """Receipts that come one after the other, which are appended to elsewhere, are all there."""
    with LoopbackHub([Repo("org/repo", small(6))]) as hub, limited_mount(tmp_path, "in-order") as disk:
        shell = shell_on(disk, tmp_path, hub)
        for name in small(6):
            done(mdl(shell, "get", "org/repo", name))
        (row,) = done(mdl(shell, "list", "--local", "--json")).document["models"]
        assert (row["files_present"], row["status"]) == (6, "present")
        done(mdl(shell, "get", "org/repo", "--offline"))


DATA = noise(6_000_000)
HANDLERS = {
    "cut": faults.first(2, faults.cut(faults.honest(DATA), 3_000_000), faults.honest(DATA)),
    "no ranges": faults.norange(DATA),
    "no length": faults.chunked(DATA),
    "cut, no ranges": faults.first(2, faults.cut(faults.norange(DATA), 3_000_000), faults.norange(DATA)),
}


@pytest.mark.parametrize("known", [True, False], ids=["digest", "no digest"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_what_breaks_starts_anew(tmp_path: Path, bench: Bench, handler: str, known: bool) -> None:
    """A connection that breaks costs the bytes that came, and the file is right in the end."""
    with limited_mount(tmp_path, "in-order") as disk:
        bench.store = Store(disk / "models")
        run = bench.fetch(HANDLERS[handler], DATA, known=known)
        assert run.code == 0, run.error
        assert bench.final.read_bytes() == DATA
        assert not list(bench.store.partials.iterdir())


def test_wrong_bytes_are_not_published(tmp_path: Path, bench: Bench) -> None:
    """A digest that does not fit is 6 there too, and nothing is left."""
    with limited_mount(tmp_path, "in-order") as disk:
        bench.store = Store(disk / "models")
        assert bench.fetch(faults.honest(DATA[::-1]), DATA).code == 6
        assert not bench.final.exists()
        assert not list(bench.store.partials.iterdir())


def test_what_a_killed_one_left_is_of_no_use(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """The partial of a dead process gives way to a new one."""
    with limited_mount(tmp_path, "in-order") as disk:
        shell = shell_on(disk, tmp_path, hub)
        key = file_key("org--repo", RelPath.parse("model.safetensors"))
        left = disk / "models" / ".mdl" / "partials" / f"{key}.{dead_owner()}"
        left.mkdir(parents=True, mode=0o700)
        (left / "data").write_bytes(WEIGHTS[:1000])
        done(mdl(shell, "get", "org/repo", "model.safetensors"))
        assert not left.exists()


def test_not_even_in_order(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """A mount that takes no large file at all is 7, which says what it does not take, and what to do."""
    with limited_mount(tmp_path, "in-order", "no-writes") as disk:
        ran = mdl(shell_on(disk, tmp_path, hub), "get", "org/repo", "model.safetensors")
        assert ran.code == 7
        assert "does not take writes, not even in order" in ran.err
        assert "local disk with --to" in ran.err


@pytest.mark.plugins
def test_other_ways_into_it(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """What import and bundle bring there is right as well."""
    with limited_mount(tmp_path, "in-order") as disk:
        there = shell_on(disk, tmp_path, hub)
        here = machine(tmp_path / "other", 'schema = 1\n[models.m]\nsource = "hf:org/repo"\n', hub.url)
        done(mdl(here, "lock"))
        done(mdl(here, "get", "m"))
        done(mdl(here, "bundle", "export", "m", "-o", str(tmp_path / "m.tar")))
        done(mdl(there, "bundle", "import", str(tmp_path / "m.tar")))
        assert files_below(disk / "models" / "m") == FILES
        done(mdl(there, "import", str(here.models / "m"), "--as", "copy", "--copy", "--to", str(disk / "imported")))
        (imported,) = (folder for folder in (disk / "imported").iterdir() if not folder.name.startswith("."))
        assert files_below(imported) == FILES


def test_a_repair(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """A damaged file is fetched whole."""
    with limited_mount(tmp_path, "in-order") as disk:
        shell = shell_on(disk, tmp_path, hub)
        done(mdl(shell, "get", "org/repo"))
        place = tmp_path / "below" / "models" / "org--repo" / "model.safetensors"
        flip(place, len(WEIGHTS) // 2)
        assert mdl(shell, "verify", "hf:org/repo").code == 6
        done(mdl(shell, "verify", "hf:org/repo", "--repair"))
        assert files_below(disk / "models" / "org--repo") == FILES
