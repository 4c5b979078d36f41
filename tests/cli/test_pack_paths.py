"""mdl pack and paths: what is refused, what is left out and said, what cannot be read, and what does not exist."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.namespaces import bound_by_modes
from support.packing import names, planned, read_whole, skipped
from support.shell import Inside, Ran, Shell

from mdl.disk.publish import remove
from mdl.errors import MdlError, NotFound, Unsafe
from mdl.ops.pack import write_pack
from mdl.ops.unpack import unpack


@pytest.fixture
def run(trained: Shell) -> Path:
    return trained.home / "run"


def refused(run: Path, checkpoint: str | None = None, **options: Any) -> MdlError:
    """Why no archive is made, and that none is."""
    with pytest.raises(MdlError) as caught:
        write_pack(planned(run, checkpoint, **options))
    assert not (run.parent / "x.zip").exists()
    return caught.value


UNSAFE = ["..", "../run", "a/b", "/etc", "a\\b", "C:x", "nul", "a\0b", "a\nb", "\x1b[2J", "~root", ".", "b\u202ec", ""]


@pytest.mark.parametrize("pick", UNSAFE)
def test_unsafe_checkpoint_names(run: Path, pick: str) -> None:
    """A checkpoint's name that is no plain name is 11, whatever the run holds; so is --checkpoint "$UNSET"."""
    assert isinstance(refused(run, pick), Unsafe)


def test_an_unsafe_name_is_shown_harmless(mdl: Inside, trained: Shell) -> None:
    """The refusal ends with 11, its control characters escaped."""
    ran = mdl(trained, "pack", "run", "--checkpoint", "a\x1b[2Jb")
    assert (ran.code, ran.out, "\x1b" in ran.err) == (11, "", False)


@pytest.mark.fault(207)
@pytest.mark.parametrize("name", ["unet", "weights.bin"])
def test_a_link_out_of_the_run(run: Path, name: str) -> None:
    """A link that leaves the run is 11 and names itself; excluded by a glob it is not followed and not in the way.
    --exclude DIR/ means the folder, also one that is empty."""
    (run / "void").mkdir()
    (run / name).symlink_to("/etc" if name == "unet" else "/etc/hostname")
    error = refused(run)
    assert (error.exit_code, name in error.message) == (11, True)
    for exclude in (name, f"{name}/" if name == "unet" else name):
        assert not names(planned(run, exclude=[exclude, "void/"])) & {name, "void"}


@pytest.mark.fault(207)
def test_links_that_stay_inside_are_followed(run: Path) -> None:
    """A link within the run is packed as what it leads to, a folder with all that is in it."""
    (run / "copy.bin").symlink_to("model.safetensors")
    (run / "last").symlink_to(run / "checkpoint-1000")
    write_pack(planned(run, whole_run=True))
    held = read_whole(run.parent / "x.zip")
    assert held["copy.bin"] == held["model.safetensors"]
    assert held["last/optimizer.pt"] == held["checkpoint-1000/optimizer.pt"]


@pytest.mark.fault(207, 209)
def test_what_is_no_file_is_left_out_and_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dangling links, loops, FIFOs, sockets and devices hang nothing, are not packed, and are listed with why. So is a
    link to the folder it is in, or to the run."""
    for name, target in (("dangling.bin", "nothing"), ("loop.bin", "loop.bin"), ("up", "."), ("self", "../run")):
        (run / name).symlink_to(target)
    os.mkfifo(run / "fifo.bin")
    monkeypatch.chdir(run)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.bin")  # its whole path may be longer than a socket's may be
    wanted = {"dangling.bin": "dangling", "loop.bin": "itself", "up": "itself", "self": "itself", "fifo.bin": "FIFO"}
    wanted |= {"socket.bin": "soc"}
    with suppress(PermissionError):
        os.mknod(run / "device.bin", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        wanted["device.bin"] = "device"
    plan = planned(run)
    write_pack(plan)
    held = read_whole(run.parent / "x.zip")
    for name, why in wanted.items():
        assert why in skipped(plan)[name]
        assert not [one for one in held if one.split("/")[0] == name]


SECRETS = (".env", ".env.local", ".netrc", "token", "id_rsa", "key.pem", "wandb/run/a", ".git/config", ".cache/x")
JUNK = ("__pycache__/m.pyc", ".DS_Store", ".x.zip.0-1-2.mdl-tmp", ".mdl/state", ".ipynb_checkpoints/n.ipynb")


@pytest.mark.fault(217)
def test_secrets_and_junk_stay_behind(mdl: Inside, trained: Shell, run: Path) -> None:
    """What may hold a secret or is no part of a model is left out, listed, and told on stderr. A link does not carry
    it into the archive under a harmless name."""
    for name in (*SECRETS, *JUNK, ".env.example"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("hush")
    for link, secret in (("notes1", ".env"), ("notes2", ".git/config"), ("notes3", ".git")):
        (run / link).symlink_to(secret)
    ran = mdl(trained, "pack", "run")
    held = read_whole(trained.home / "model_run.zip")
    assert ".env.example" in held
    assert not [name for name in held if name.startswith("notes")]
    for name in (*SECRETS, *JUNK):
        assert name not in held
        assert f"left out: {name.split('/')[0]} (" in ran.err


@pytest.mark.fault(217)
def test_a_secret_that_is_named_is_packed(run: Path) -> None:
    """--include .env adds it to the usual selection, because it was named; a glob that merely matches does not."""
    (run / ".env").write_text("hush")
    usual = names(planned(run))
    assert names(planned(run, include=[".env"])) == {*usual, ".env"}
    plan = planned(run, include=["*"])
    assert (".env" in names(plan), ".env" in skipped(plan)) == (False, True)


@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        ".git/hooks/pre-commit",
        "wandb/run-1/files/config.yaml",
        ".cache/x.json",
        "logs/wandb/run-1/summary.json",
        "wandb/secrets/settings.json",
        "wandb/.env",
        "inside/x.json",
    ],
)
def test_a_file_in_a_folder_that_is_left_out(run: Path, name: str) -> None:
    """Its own name adds it alone, also where such folders are nested or a link leads to one; the rest of the folder
    stays left out and is listed."""
    place = run / name
    if name.startswith("inside/"):
        (run / ".cache").mkdir()
        (run / "inside").symlink_to(".cache")
        place = run / ".cache" / "x.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}")
    (place.parent / "other.json").write_text("{}")
    usual = planned(run)
    plan = planned(run, include=[name])
    assert names(plan) == {*names(usual), name}
    assert skipped(plan) == skipped(usual)


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [(".git", 0), (".git/none", 3), (".git/config/none", 3), (".git/out", 3), (".git/../model.safetensors", 3)],
)
def test_what_cannot_be_added(run: Path, name: str, exit_code: int) -> None:
    """A folder that is left out is not added as a whole; what is not in it, or leads out of the run, is not found."""
    (run / ".git").mkdir()
    (run / ".git" / "config").write_text("x")
    (run.parent / "outside").write_text("hush")
    (run / ".git" / "out").symlink_to("../../outside")
    if exit_code:
        assert refused(run, include=[name]).exit_code == exit_code
        return
    plan = planned(run, include=[name])
    assert name not in names(plan)
    assert "only files can be added" in {one.path: one.why for one in plan.selection.skipped}[name]


TOKEN = "hf_" + "Ab1Cd2Ef3G" * 4
HOLDS = "holds what looks like a Hugging Face token"


@pytest.fixture
def leaky(run: Path) -> Path:
    """A run in which a token is in a setting, a pickle, a script, a log, a checkpoint and the model's configuration."""
    (run / "run.yaml").write_text(f"hub: {TOKEN}\n")
    (run / "training_args.bin").write_bytes(pickle.dumps({"hub_token": TOKEN}))
    (run / "args.pt").write_bytes(pickle.dumps({"hub_token": TOKEN}))
    (run / "sub").mkdir()
    (run / "sub" / "train.sh").write_text(f"export HF_TOKEN={TOKEN}\n")
    (run / "train.log").write_text(f"{TOKEN}\n")
    (run / "checkpoint-1000" / "training_args.bin").write_bytes(pickle.dumps([TOKEN]))
    (run / "config.json").write_text(json.dumps({"token": TOKEN}))
    (run / "core.123").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\4\0" + bytes(200))
    return run


LEAKS = {"run.yaml", "training_args.bin", "args.pt", "sub/train.sh", "config.json"}


def test_a_file_that_holds_a_secret_is_left_out(mdl: Inside, trained: Shell, leaky: Path) -> None:
    """Whatever its name is: it is left out and named with the kind of secret, never with its text; the rest is packed
    (0). If the model may need that file, the line says so."""
    ran = mdl(trained, "pack", "run", "--json")
    assert ran.code == 0, ran.err
    held = read_whole(trained.home / "model_run.zip")
    assert not {*LEAKS, "core.123"} & {*held}
    assert not [name for name, data in held.items() if TOKEN.encode() in data]
    whys = {one["path"]: one["why"] for one in ran.document["skipped"]}
    assert {path for path, why in whys.items() if HOLDS in why} == LEAKS
    assert whys["core.123"].startswith("holds what looks like the memory of a program")
    assert "the model may not load without it" in whys["config.json"]
    assert "may not load" not in whys["run.yaml"]
    assert f"left out: run.yaml ({HOLDS}" in ran.err
    assert TOKEN not in ran.err + ran.out


def test_the_look_is_the_same_for_every_pack(mdl: Inside, trained: Shell, leaky: Path) -> None:
    """A plan, a pipe, the whole run, the logs, a checkpoint: no secret is in any of them."""
    for words in ("-n", "--all", "--logs", "--checkpoint latest", "--all --include *.yaml --include *.json"):
        output = trained.home / "x.zip"
        ran = mdl(trained, "pack", "run", *words.split(), "-o", str(output), "--force")
        assert ran.code == 0, (words, ran.err)
        assert HOLDS in ran.err, words
        if words == "-n":
            assert not LEAKS & {*ran.out.split()}
        else:
            with zipfile.ZipFile(output) as archive:
                assert not [name for name in archive.namelist() if TOKEN.encode() in archive.read(name)], words
    command = trained.command("pack", "run", "-o", "-")
    piped = subprocess.run(command, env=trained.environ, cwd=trained.home, capture_output=True, check=True)
    assert (HOLDS.encode() in piped.stderr, b"run.yaml" in piped.stdout) == (True, False), piped.stderr


def test_a_secret_that_is_allowed(mdl: Inside, trained: Shell, leaky: Path) -> None:
    """--include NAME --allow-secrets adds that file, and says so; --include alone, or a glob, does not."""
    ran = mdl(trained, "pack", "run", "--include", "run.yaml")
    assert (ran.code, f"left out: run.yaml ({HOLDS}" in ran.err) == (0, True), ran.err
    held = read_whole(trained.home / "model_run.zip")
    assert ("run.yaml" in held, "model.safetensors" in held) == (False, True)
    ran = mdl(trained, "pack", "run", "--include", "run.yaml", "--allow-secrets")
    assert (ran.code, f"run.yaml {HOLDS}, and is packed, as --allow-secrets says" in ran.err) == (0, True), ran.err
    held = read_whole(trained.home / "model_run.zip")
    assert (TOKEN.encode() in held["run.yaml"], LEAKS & {*held}) == (True, {"run.yaml"})
    assert "model.safetensors" in held
    for words in ([], ["--include", "*.yaml"]):
        ran = mdl(trained, "pack", "run", "--allow-secrets", *words)
        assert (ran.code, "--include NAME" in ran.err) == (2, True), ran.err


def test_a_secret_in_a_folder_that_is_left_out(mdl: Inside, trained: Shell, run: Path) -> None:
    """A file that is added from such a folder is looked at for secrets as every other."""
    (run / "wandb").mkdir()
    (run / "wandb" / "debug.json").write_text(json.dumps({"token": TOKEN}))
    ran = mdl(trained, "pack", "run", "--include", "wandb/debug.json")
    assert (ran.code, f"left out: wandb/debug.json ({HOLDS}" in ran.err) == (0, True), ran.err
    assert "wandb/debug.json" not in read_whole(trained.home / "model_run.zip")
    ran = mdl(trained, "pack", "run", "--include", "wandb/debug.json", "--allow-secrets")
    assert ran.code == 0, ran.err
    assert "wandb/debug.json" in read_whole(trained.home / "model_run.zip")


def test_weights_with_a_secret_are_packed_and_named(run: Path) -> None:
    """A trainer's settings are saved within some weights: a model without them is none, so that is said."""
    with zipfile.ZipFile(run / "last.ckpt", "w") as archive:
        archive.writestr("last/data.pkl", pickle.dumps({"token": TOKEN}))
        archive.writestr("last/data/0", bytes(100))
    plan = planned(run, whole_run=True)
    assert "last.ckpt" in names(plan)
    assert f"last.ckpt {HOLDS}, and is packed, for it is weights" in plan.selection.notes


STEP = "checkpoint-1000"
LEFT_OUT: list[tuple[str, dict[str, Any]]] = [
    (".env", {}),
    (".env", {"checkpoint": STEP}),
    (".env", {"checkpoint": STEP, "inference_only": True}),
    ("optimizer.pt", {"checkpoint": STEP, "inference_only": True}),
    ("train.log", {}),
    ("train.log", {"checkpoint": STEP}),
    ("checkpoint-500/model.safetensors", {}),
    ("checkpoint-500/model.safetensors", {"checkpoint": STEP}),
    ("config.json", {"logs": True}),
]


@pytest.mark.parametrize(("name", "options"), LEFT_OUT)
def test_each_reason_for_leaving_out(run: Path, name: str, options: dict[str, Any]) -> None:
    """Whyever a file is left out, its own name adds it, and nothing else changes; what is packed anyway narrows."""
    (run / ".env").write_text("hush")
    usual = names(planned(run, **options))
    assert name not in usual
    assert names(planned(run, include=[name], **options)) == {*usual, name}
    one = min(usual)
    assert names(planned(run, include=[one], **options)) == {one}
    assert names(planned(run, include=[name, one], **options)) == {name, one}
    with pytest.raises(NotFound):
        planned(run, include=[name], exclude=["*"], **options)


@pytest.mark.fault(284)
@pytest.mark.parametrize("digits", [18, 19, 200])
def test_a_checkpoint_of_any_number_can_be_unpacked(run: Path, digits: int) -> None:
    """The number in a folder's name is a step only as far as a trainer can count: what is packed can be unpacked."""
    name = f"checkpoint-{'9' * digits}"
    (run / "checkpoint-1000").rename(run / name)
    write_pack(planned(run, name))
    manifest = unpack(run.parent / "x.zip", run.parent / "back").manifest
    assert (manifest.checkpoint, manifest.step) == (name, int("9" * 18) if digits == 18 else None)


OWN = [(b"MDL-Manifest.json",), (b"mdl-manifest.json/x",), (b"Checkpoint-500/x.bin",)]
TWINS = [(b"A.bin", b"a.BIN"), ("\u00e9".encode(), "e\u0301".encode())]


@pytest.mark.fault(212)
@pytest.mark.parametrize("group", [(b"caf\xe9.bin",), (b"a\\b",), (b"x ",), *TWINS, *OWN])
def test_names_that_not_every_machine_can_hold(run: Path, group: tuple[bytes, ...]) -> None:
    """Names that are not UTF-8, twins in case or Unicode form, what is unsafe elsewhere, and what mdl itself would
    refuse to unpack: 11."""
    for name in group:
        path = Path(os.fsdecode(os.fsencode(run) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    error = refused(run, whole_run=True)
    assert error.exit_code == 11
    str(error.item).encode("utf-8")


@pytest.mark.fault(210)
def test_what_cannot_be_read_is_named_all_of_it(trained: Shell) -> None:
    """Unreadable files and folders are 7, every one of them named, and no archive; excluded, they are forgiven. If
    files are chosen by name, a closed folder may hold one of them, and is 7 too."""

    def mdl(*words: str) -> Ran:
        return trained.run(*words, prefix=bound_by_modes())

    home = trained.home
    closed = ("one.bin", "two.bin", "closed")
    (home / "run" / "closed").mkdir()
    for name in (*closed[:2], "closed/part.bin"):
        (home / "run" / name).write_text("x")
    for name in closed:
        (home / "run" / name).chmod(0)
    ran = mdl("pack", "run")
    assert (ran.code, ran.out) == (7, "")
    assert [name for name in closed if f"  {name}: " not in ran.err] == []
    assert sorted(os.listdir(home)) == ["run"]
    excluded = [word for name in closed for word in ("--exclude", name)]
    assert mdl("pack", "run", *excluded).code == 0
    ran = mdl("pack", "run", *excluded[:4])
    assert (ran.code, ": 1 path cannot be read" in ran.err) == (7, True)
    for words in ((*excluded[:4], "--include", "*.bin", "--include", "*.json"), ("--logs",)):
        assert mdl("pack", "run", *words).code == 7
    (home / "run" / "closed").chmod(0o444)  # it can be listed, and not entered
    assert mdl("pack", "run", *excluded[:4]).code == 7
    for number in range(25):
        (home / "run" / f"part-{number}.bin").touch(0)
    ran = mdl("pack", "run")
    assert [number for number in range(25) if f"  part-{number}.bin: " not in ran.err] == []


def test_runs_and_checkpoints_that_do_not_exist(mdl: Inside, trained: Shell, run: Path) -> None:
    """No such run, a file, an empty run, no log, no such checkpoint, and a best that is recorded and gone: each is 3
    with a hint, and what exists is named."""
    (trained.home / "empty").mkdir()
    (run / "train.log").unlink()
    (run / "checkpoint-1000" / "trainer_state.json").rename(run / "state")
    remove(run / "checkpoint-500")
    for words in (("nope",), ("run/config.json",), ("empty",), ("run", "--logs")):
        ran = mdl(trained, "pack", *words)
        assert (ran.code, ran.out, "hint: " in ran.err) == (3, "", True), words
    assert "run" in mdl(trained, "pack", "nope").err.split("hint: ")[1]
    (run / "state").rename(run / "checkpoint-1000" / "trainer_state.json")
    for pick, word in (("checkpoint-7", "checkpoint-7"), ("best", "does not exist any more")):
        ran = mdl(trained, "pack", "run", "--checkpoint", pick)
        assert (ran.code, word in ran.err, "there are: checkpoint-1000, final" in ran.err) == (3, True, True)
    (run / "checkpoint-1000" / "trainer_state.json").write_text("{}")
    assert "recorded" in refused(run, "best").message
