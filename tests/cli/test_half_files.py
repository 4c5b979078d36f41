"""Half files of other programs: their bytes are taken where a digest is known, which decides; nothing of theirs is
moved, changed or overwritten."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data import sha256
from support.faults import honest, stall_in_body
from support.faulty_server import FaultyServer
from support.hf_cache import actions, cache_of
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.polling import until
from support.shell import Inside, Ran, Shell, done, with_environ

import mdl as library
from mdl.disk.copy import drop_what_was_read
from mdl.downloader.foreign_partials import pieces_there

UNIT = 2**18
"""Of all sizes here: what is of another program is looked at in pieces of 64 KiB and more."""
SIZE = 40 * UNIT
WEIGHTS = Generated(SIZE, "half")[0:SIZE]
CONFIG = b'{"layers": 2}'
NAME = "sub/big.safetensors"
REPO = Repo("org/tiny", {"config.json": CONFIG, NAME: WEIGHTS})
REPOS = [REPO]
HALF = 30 * UNIT
HEX = sha256(WEIGHTS)


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return Shell(tmp_path, hub.url)


@pytest.fixture
def into(shell: Shell) -> Path:
    """The folder that the files are to be in, where other programs have been before."""
    folder = shell.home / "into"
    (folder / "sub").mkdir(parents=True)
    return folder


def get(shell: Shell, mdl: Inside, into: Path, *more: str) -> Ran:
    return mdl(shell, "get", "org/tiny", "--into", str(into), "--json", *more)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reserved(path: Path, *ranges: tuple[int, int]) -> Path:
    """A file for all of which room was reserved (``fallocate``), and in which only these ranges were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)
        for start, stop in ranges:
            os.pwrite(file.fileno(), WEIGHTS[start:stop], start)
    return path


def sparse(path: Path, *ranges: tuple[int, int], size: int = 40) -> Path:
    """A file of so many units, of which only these ranges were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start, stop in ranges:
            file.seek(start)
            file.write(WEIGHTS[start:stop])
        file.truncate(size * UNIT)
    return path


FIRST = WEIGHTS[:HALF]
PLACES: dict[str, Callable[[Path, Path], Path]] = {
    "wget, curl": lambda into, _: write(into / NAME, FIRST),
    "Firefox, yt-dlp": lambda into, _: write(into / f"{NAME}.part", FIRST),
    "Firefox, with an empty file": lambda into, _: write(
        write(into / NAME, b"").with_name("big.safetensors.part"), FIRST
    ),
    "Chrome": lambda into, _: write(into / f"{NAME}.crdownload", FIRST),
    "Firefox, a random part": lambda into, _: write(into / "sub" / "big.aB3-_9xY.safetensors.part", FIRST),
    "Firefox, at the end": lambda into, _: write(into / f"{NAME}.aB3x_9xY.part", FIRST),
    "Safari": lambda into, _: write(into / f"{NAME}.download" / "big.safetensors", FIRST),
    "rsync": lambda into, _: write(into / "sub" / ".big.safetensors.Ab12Cd", FIRST),
    "hf --local-dir": lambda into, _: write(
        into / ".cache/huggingface/download/sub" / f"dR-7fLw=.{HEX}.incomplete", FIRST
    ),
    "hf --local-dir, 2.x": lambda into, _: write(
        into / ".cache/huggingface/download/sub" / f"dR-7fLw=.{HEX}.0a1b2c3d.incomplete", FIRST
    ),
    "hf": lambda _, cache: write(cache / "models--org--tiny/blobs" / f"{HEX}.incomplete", FIRST),
    "hf, 2.x": lambda _, cache: write(cache / "models--org--tiny/blobs" / f"{HEX}.0a1b2c3d.incomplete", FIRST),
    "aria2, reserved": lambda into, _: reserved(into / NAME, (0, 10 * UNIT), (20 * UNIT, 40 * UNIT)),
    "a downloader that reserves": lambda into, _: reserved(
        into / f"{NAME}.part", (0, 10 * UNIT), (20 * UNIT, 40 * UNIT)
    ),
    "aria2, preallocated": lambda into, _: sparse(into / NAME, (0, 10 * UNIT), (20 * UNIT, 40 * UNIT)),
    "aria2, shorter and with holes": lambda into, _: sparse(
        into / NAME, (0, 10 * UNIT), (18 * UNIT, 38 * UNIT), size=38
    ),
    "a downloader with holes": lambda into, _: sparse(into / f"{NAME}.part", (0, 20 * UNIT), (30 * UNIT, 40 * UNIT)),
    "hf --local-dir, 0.23": lambda into, _: write(into / ".huggingface/download" / f"{NAME}.{HEX}.incomplete", FIRST),
    "rclone": lambda into, _: write(into / f"{NAME}.0a1b2c3d.partial", FIRST),
    "torch.hub": lambda into, _: write(into / f"{NAME}.{'0a' * 16}.partial", FIRST),
    "aws s3 cp": lambda into, _: write(into / f"{NAME}.4Ab3Cd9F", FIRST),
    "gcloud": lambda into, _: write(into / f"{NAME}_.gstmp", FIRST),
    "gdown": lambda into, _: write(into / f"{NAME}ab_d1234.part", FIRST),
    "azcopy": lambda into, _: write(
        into / "sub" / ".azDownload-0f9c2b1e-9d3b-4b1a-8f2e-1c2d3e4f5a6b-big.safetensors", FIRST
    ),
    "LM Studio": lambda into, _: write(into / "sub" / "downloading_big.safetensors.part", FIRST),
    "llama.cpp": lambda into, _: write(into / f"{NAME}.downloadInProgress", FIRST),
    "git-lfs": lambda into, _: write(into / ".git/lfs/incomplete" / f"{HEX}.part", FIRST),
    "git-lfs, killed": lambda into, _: write(into / ".git/lfs/incomplete" / f"{HEX}1234567", FIRST),
    "ModelScope": lambda into, _: write(into / "._____temp" / NAME, FIRST),
    "whole, but not renamed": lambda into, _: write(into / f"{NAME}.part", WEIGHTS),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_there_is_not_fetched(shell: Shell, mdl: Inside, into: Path, place: str) -> None:
    """0, and at most the rest comes; plan and report count what is there as kept; the other program's file stays as it
    is, unless it has the final name."""
    half = PLACES[place](into, cache_of(shell))
    left, facts = half.read_bytes(), half.stat()
    drop_what_was_read(half)
    planned = done(get(shell, mdl, into, "-n")).document
    assert planned["bytes_to_fetch"] <= 11 * UNIT
    assert planned["bytes_kept"] >= 29 * UNIT
    assert half.stat() == facts
    ran = done(get(shell, mdl, into)).document
    assert ran["bytes_fetched"] <= 11 * UNIT
    assert ran["bytes_kept"] >= 29 * UNIT
    assert (into / NAME).read_bytes() == WEIGHTS
    if half != into / NAME:
        assert (half.read_bytes() == left, half.stat().st_ino) == (True, facts.st_ino)
    assert set(actions(done(get(shell, mdl, into))).values()) == {"kept"}


@pytest.mark.parametrize("variable", ["TRANSFORMERS_CACHE", "SENTENCE_TRANSFORMERS_HOME"])
def test_a_cache_of_a_library(shell: Shell, mdl: Inside, into: Path, variable: str) -> None:
    """A library may keep the hub's cache elsewhere: what is there is not fetched, and nothing is written there."""
    cache = shell.home / "shared cache"
    blob = write(cache / "models--org--tiny" / "blobs" / HEX, WEIGHTS)
    libraries = with_environ(shell, **{variable: "$HOME/shared cache"})
    ran = done(get(libraries, mdl, into)).document
    assert ran["bytes_fetched"] == len(CONFIG)
    assert [path for path in cache.rglob("*") if path.is_file()] == [blob]


def test_home_in_a_file_of_variables(shell: Shell, mdl: Inside) -> None:
    """docker --env-file and systemd hand on $HOME as it is written: it is the home folder, as ~ is."""
    for word in ("$HOME", "${HOME}", "~"):
        elsewhere = with_environ(shell, MDL_HOME=f"{word}/elsewhere", MDL_CATALOG=f"{word}/own.toml")
        (shell.home / "own.toml").write_text('schema = 1\n[models.tiny]\nsource = "hf:org/tiny@main/config.json"\n')
        ran = done(mdl(elsewhere, "get", "tiny"))
        assert ran.out.startswith(f"{shell.home}/elsewhere/")


@pytest.mark.parametrize("word", ["$HOME", "~"])
def test_home_in_the_name_of_a_catalog(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """A shell leaves the ~ of --catalog=~/… as it is, and nobody replaces it for Client."""
    (shell.home / "own.toml").write_text('schema = 1\n[models.tiny]\nsource = "hf:org/tiny@main/config.json"\n')
    ran = done(mdl(shell, "list", f"--catalog={word}/own.toml", "--json"))
    assert [model["name"] for model in ran.document["models"]] == ["tiny"]
    monkeypatch.setenv("HOME", str(shell.home))
    assert list(library.Client(catalog=f"{word}/own.toml").catalog.models) == ["tiny"]


@pytest.mark.parametrize("place", ["s3://bucket/models", "https://host.example/models", "file:///models"])
def test_a_url_is_no_folder(shell: Shell, mdl: Inside, place: str) -> None:
    """2, and no folder of that name is made in the current one."""
    assert "--to: it is a URL" in done(mdl(shell, "get", "org/tiny", "--to", place), 2).err
    assert "MDL_HOME: it is a URL" in done(mdl(with_environ(shell, MDL_HOME=place), "get", "org/tiny"), 2).err


def test_in_the_hubs_cache(shell: Shell, mdl: Inside) -> None:
    """What hf left unfinished in its cache is gone on with in that layout, too."""
    half = PLACES["hf, 2.x"](shell.home, cache_of(shell))
    ran = done(mdl(shell, "get", "org/tiny", "--layout", "hf-cache", "--json"))
    assert ran.document["bytes_fetched"] <= 11 * UNIT
    assert half.read_bytes() == FIRST


@pytest.mark.parametrize("make", [sparse, reserved])
def test_nothing_was_written_yet(shell: Shell, mdl: Inside, into: Path, make: Callable[..., Path]) -> None:
    """A file in which nothing was written gives way, as an empty one does."""
    make(into / NAME)
    done(get(shell, mdl, into))
    assert (into / NAME).read_bytes() == WEIGHTS


WRONG = WEIGHTS[:HALF][::-1]


@pytest.mark.parametrize("ending", [".part", ".crdownload"])
def test_wrong_bytes_of_an_unfinished_name(shell: Shell, mdl: Inside, into: Path, ending: str) -> None:
    """They are thrown away, which is told, and the file is fetched once from its start."""
    half = write(into / f"{NAME}{ending}", WRONG)
    ran = done(get(shell, mdl, into)).document
    assert (into / NAME).read_bytes() == WEIGHTS
    assert (half.read_bytes() == WRONG, ran["bytes_discarded"] >= HALF) == (True, True)
    assert ran["bytes_fetched"] <= 2 * SIZE


WRONG_FINALS: dict[str, Callable[[Path], Path]] = {
    "shorter": lambda path: write(path, WRONG),
    "shorter, one byte": lambda path: write(path, FIRST[:-1] + bytes([FIRST[-1] ^ 1])),
    "same size": lambda path: write(path, WEIGHTS[::-1]),
    "longer": lambda path: write(path, WEIGHTS + b"x"),
}


@pytest.mark.parametrize("kind", WRONG_FINALS)
def test_wrong_bytes_of_the_final_name(shell: Shell, mdl: Inside, into: Path, kind: str) -> None:
    """7, the file is as it was, and no partial is left; --force replaces it."""
    final = WRONG_FINALS[kind](into / NAME)
    before, facts = final.read_bytes(), final.stat()
    ran = get(shell, mdl, into)
    assert (ran.code, final.read_bytes() == before, final.stat().st_mtime_ns) == (7, True, facts.st_mtime_ns)
    assert not list((into / ".mdl" / "partials").glob("*"))
    done(get(shell, mdl, into, "--force"))
    assert final.read_bytes() == WEIGHTS


@pytest.mark.parametrize(("data", "code"), [(CONFIG[:5], 0), (b"", 0), (b"other", 7)])
def test_a_small_file(shell: Shell, mdl: Inside, into: Path, data: bytes, code: int) -> None:
    """A small file is fetched whole; what is under its name is replaced only if it is the beginning of it."""
    final = write(into / "config.json", data)
    ran = get(shell, mdl, into)
    assert (ran.code, final.read_bytes()) == (code, data if code else CONFIG)


def test_an_edited_file_is_no_half_file(shell: Shell, mdl: Inside, into: Path) -> None:
    """A file that mdl wrote and that its user cut since stays: 7."""
    done(get(shell, mdl, into))
    os.truncate(into / NAME, HALF)
    assert get(shell, mdl, into).code == 7
    assert (into / NAME).stat().st_size == HALF


@pytest.mark.parametrize("known", [True, False])
def test_a_url(shell: Shell, mdl: Inside, into: Path, known: bool) -> None:
    """Of a URL too the rest is fetched, if a digest is known. Without one nothing is borrowed, and a shorter file under
    the final name is 7."""
    half = write(into / "big.dat.part", FIRST)
    words = ["--sha256", HEX] if known else []
    with FaultyServer(honest(WEIGHTS)) as server:
        url = f"{server.url}/big.dat"
        ran = done(mdl(shell, "get", url, "--into", str(into), "--json", *words))
        assert ran.document["bytes_fetched"] == (SIZE - HALF if known else SIZE)
        assert half.read_bytes() == FIRST
        other = shell.home / "other"
        write(other / "big.dat", FIRST)
        assert mdl(shell, "get", url, "--into", str(other), *words).code == (0 if known else 7)


def test_outdated_says_partial(shell: Shell, mdl: Inside) -> None:
    """What another program has of a file is a part of it, and no stranger's file."""
    write(shell.models / "org--tiny" / NAME, FIRST)
    (shell.home / "catalog.toml").write_text('schema = 1\n[models."org--tiny"]\nsource = "hf:org/tiny"\n')
    ran = mdl(shell, "outdated", "org--tiny", "--catalog", str(shell.home / "catalog.toml"), "--json")
    changes = {one["path"]: one["change"] for one in ran.document["models"][0]["changes"]}
    assert changes == {"config.json": "new", NAME: "partial"}


def safetensors(size: int) -> bytes:
    """A file of so many bytes, that begins and ends as its name says."""
    header = f'{{"a":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + WEIGHTS[:size]


@pytest.mark.parametrize(
    "name", ["Unconfirmed 834.crdownload", ".com.google.Chrome.aB3x9Y", "aB3x_9xY.safetensors.part"]
)
@pytest.mark.parametrize("is_of_it", [True, False])
def test_a_name_that_tells_nothing(shell: Shell, mdl: Inside, into: Path, name: str, is_of_it: bool) -> None:
    """What a browser calls by a number is taken if it begins as the file must; another download is left alone."""
    data = safetensors(20 * UNIT)
    begun = write(into / name, data[: 15 * UNIT] if is_of_it else WEIGHTS[: 15 * UNIT])
    with FaultyServer(honest(data)) as server:
        words = ["--sha256", sha256(data), "--into", str(into), "--json"]
        ran = done(mdl(shell, "get", f"{server.url}/m.safetensors", *words)).document
    assert ran["bytes_fetched"] == (len(data) - 15 * UNIT if is_of_it else len(data))
    assert (into / "m.safetensors").read_bytes() == data
    assert begun.stat().st_size == 15 * UNIT


PIECE = UNIT


def control(pieces: set[int], in_flight: dict[int, set[int]], size: int = SIZE) -> bytes:
    """aria2's control file, as its manual has it: whole pieces, and blocks of 16 KiB of those that are on their way."""
    field = bytearray(size // PIECE // 8)
    for number in pieces:
        field[number // 8] |= 0x80 >> number % 8
    data = struct.pack(">HII", 1, 0, 0) + struct.pack(">IQQI", PIECE, size, 0, len(field)) + field
    data += struct.pack(">I", len(in_flight))
    for number, blocks in in_flight.items():
        bits = bytearray(8)
        for block in blocks:
            bits[block // 8] |= 0x80 >> block % 8
        data += struct.pack(">III", number, PIECE, len(bits)) + bits
    return data


def test_aria2_notes_what_is_there(shell: Shell, mdl: Inside, into: Path) -> None:
    """A file whose whole length aria2 has filled with zeros beforehand: its control file tells what came."""
    have = bytearray(SIZE)
    have[: 20 * PIECE] = WEIGHTS[: 20 * PIECE]
    have[30 * PIECE : 39 * PIECE] = WEIGHTS[30 * PIECE : 39 * PIECE]
    have[39 * PIECE : 39 * PIECE + 32768] = WEIGHTS[39 * PIECE : 39 * PIECE + 32768]
    write(into / NAME, bytes(have))
    noted = write(into / f"{NAME}.aria2", control({*range(20), *range(30, 39)}, {39: {0, 1}}))
    planned = done(get(shell, mdl, into, "-n")).document
    assert planned["bytes_to_fetch"] == 11 * PIECE - 32768 + len(CONFIG)
    assert done(get(shell, mdl, into)).document["bytes_fetched"] == 11 * PIECE - 32768 + len(CONFIG)
    assert (into / NAME).read_bytes() == WEIGHTS
    assert noted.exists()


@pytest.mark.skipif(shutil.which("aria2c") is None, reason="aria2 is not installed")
def test_a_real_aria2(shell: Shell, mdl: Inside, into: Path) -> None:
    """What a real aria2 left is gone on with, though it had given the file its whole length."""
    with FaultyServer(stall_in_body(WEIGHTS, HALF)) as server:
        flags = [
            "--file-allocation=prealloc",
            "--auto-save-interval=1",
            "-x1",
            "-s1",
            "-q",
            "-d",
            str(into),
            "-o",
            NAME,
        ]
        with subprocess.Popen(["aria2c", *flags, f"{server.url}/big.dat"]) as aria2:
            place = into / f"{NAME}.aria2"
            until(lambda: place.exists() and any(stop > HALF // 2 for _, stop in pieces_there(into / NAME) or ()))
            aria2.terminate()
            aria2.wait(30)
    ran = done(get(shell, mdl, into)).document
    assert ran["bytes_fetched"] <= SIZE - HALF // 2 + len(CONFIG)
    assert (into / NAME).read_bytes() == WEIGHTS


@pytest.mark.parametrize("damage", [b"", b"\0" * 8, b"\0\1" + b"\xff" * 40, control({1}, {})[:-6]])
def test_a_control_file_that_is_none(into: Path, damage: bytes) -> None:
    """What cannot be read as one tells nothing."""
    write(into / f"{NAME}.aria2", damage)
    assert pieces_there(into / NAME) is None


# What git leaves: pointers in the place of large files, and what it has fetched of them.

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def test_a_pointer_of_git_gives_way(shell: Shell, mdl: Inside, into: Path) -> None:
    """A clone without its large files has their pointers: the pointer of the very file is replaced by it."""
    write(into / NAME, POINTER.format(HEX, SIZE).encode())
    done(get(shell, mdl, into))
    assert (into / NAME).read_bytes() == WEIGHTS


def test_large_files_of_a_clone_are_not_fetched(shell: Shell, mdl: Inside, into: Path) -> None:
    """What git has fetched already is taken from there, and stays as it is."""
    stored = write(into / ".git" / "lfs" / "objects" / HEX[:2] / HEX[2:4] / HEX, WEIGHTS)
    write(into / NAME, POINTER.format(HEX, SIZE).encode())
    ran = done(get(shell, mdl, into)).document
    assert ran["bytes_fetched"] < UNIT
    assert (into / NAME).read_bytes() == stored.read_bytes() == WEIGHTS


OTHERS = {
    "a pointer of another file": POINTER.format("b" * 64, SIZE).encode(),
    "an error text": b'{"error": "Access to model org/tiny is restricted. You must be authenticated."}',
    "a web page": b"<!doctype html><html><title>Sign in</title></html>",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_cannot_be_a_part_is_told_before_a_byte_comes(
    shell: Shell, hub: LoopbackHub, mdl: Inside, into: Path, kind: str
) -> None:
    """7, as for any other file, and nothing is fetched for it that would be thrown away."""
    path = write(into / NAME, OTHERS[kind])
    done(get(shell, mdl, into), 7)
    assert path.read_bytes() == OTHERS[kind]
    assert not [request for request in hub.requests if "/resolve/" in request.path and NAME in request.path]


def test_a_file_in_the_place_of_mdls_own_folder(shell: Shell, mdl: Inside, into: Path) -> None:
    """ModelScope has a file of that name: it is named."""
    write(into / ".mdl", b"modelscope")
    assert (
        f"{into}/.mdl is a file of another program" in done(mdl(shell, "get", "org/tiny", "--into", str(into)), 7).err
    )
