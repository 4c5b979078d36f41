"""mdl pack, seen from outside: names, streams, documents, and an archive that is the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from support.data import noise
from support.packing import MANIFEST, archive_of, make_run, read_whole
from support.runs import put, write
from support.shell import Inside, Shell, done, machine
from support.weights import stable_baselines_zip

from mdl.errors import ProtocolError
from mdl.events import Event, Started
from mdl.ops.pack import plan_pack, write_pack


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "model_run.zip"),
        ("--checkpoint checkpoint-500", "model_run_checkpoint-500.zip"),
        ("--checkpoint latest", "model_run_checkpoint-1000.zip"),
        ("--checkpoint best", "model_run_checkpoint-500.zip"),
        ("--logs", "logs_run.zip"),
    ],
)
def test_the_name_of_an_archive(mdl: Inside, trained: Shell, words: str, name: str) -> None:
    """Without -o the archive lies in the current folder, named after its run; its path is the one line on stdout."""
    ran = mdl(trained, "pack", "run/", *words.split())
    assert (ran.code, ran.out) == (0, f"{trained.home / name}\n"), ran.err
    assert "\x1b" not in ran.err
    assert sorted(os.listdir(trained.home)) == sorted([name, "run"])
    held = read_whole(trained.home / name)
    if words == "--logs":
        assert "train.log" in held
        assert not [one for one in held if one.endswith((".safetensors", ".pt"))]
    else:
        folder = trained.home / "run" / (json.loads(held[MANIFEST])["checkpoint"] or ".")
        assert held["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        assert "train.log" not in held


def test_a_checkpoint_by_its_path(mdl: Inside, trained: Shell) -> None:
    """What a shell completes is the path of a checkpoint: it is refused (11) with the names that can be given."""
    ran = mdl(trained, "pack", "run", "--checkpoint", "run/checkpoint-500")
    assert (ran.code, "give its name, not its path; there are: checkpoint-500, " in ran.err) == (11, True), ran.err


@pytest.mark.parametrize("beside", [True, False])
def test_a_model_without_one_of_its_shards_is_refused(mdl: Inside, trained: Shell, beside: bool) -> None:
    """Without --checkpoint the run's model is packed: it is refused (6) as a checkpoint would be, unless that is
    allowed; what globs choose is what is there."""
    run = trained.home / "run"
    (run / "model.safetensors").rename(run / "model-00001-of-00002.safetensors")
    index = {"weight_map": {letter: f"model-0000{at}-of-00002.safetensors" for at, letter in ((1, "a"), (2, "b"))}}
    (run / "model.safetensors.index.json").write_text(json.dumps(index))
    for checkpoint in [] if beside else run.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    ran = mdl(trained, "pack", "run")
    assert (ran.code, "shard model-00002-of-00002.safetensors of the index is missing" in ran.err) == (6, True), ran.err
    assert not (trained.home / "model_run.zip").exists()
    for words in (["--allow-incomplete"], ["--include", "*.json"]):
        assert mdl(trained, "pack", "run", *words, "-n").code == 0


@pytest.mark.fault(220, 288)
@pytest.mark.parametrize("pick", ["latest", "best"])
def test_a_newer_incomplete_checkpoint_is_named(mdl: Inside, trained: Shell, pick: str) -> None:
    """``latest`` and ``best`` that skip a newer incomplete checkpoint say which and why: stderr, document, manifest."""
    (trained.home / "run" / "checkpoint-1000" / "trainer_state.json").unlink()
    ran = mdl(trained, "pack", "run", "--checkpoint", pick, "--json")
    assert (ran.code, ran.document["archive"]) == (0, "model_run_checkpoint-500.zip"), ran.err
    [left] = [one for one in ran.document["skipped"] if one["path"] == "checkpoint-1000"]
    assert left["why"].startswith("not complete: ")
    assert "trainer_state.json" in left["why"]
    assert "checkpoint-500 is taken" in left["why"]
    assert "left out: checkpoint-1000 (not complete" in ran.err
    assert json.loads(read_whole(Path(ran.document["path"]))[MANIFEST])["skipped"] == [left]
    for words in (("--checkpoint", "checkpoint-500"), ()):
        assert "not complete" not in mdl(trained, "pack", "run", *words, "-n").err


@pytest.mark.fault(216)
def test_a_file_a_folder_and_a_pipe_get_the_same_bytes(mdl: Inside, trained: Shell) -> None:
    """-o FILE, -o DIR and -o - write one and the same archive; stdout holds it or its path, nothing else."""
    (trained.home / "out").mkdir()
    for target, place in (("mine.zip", "mine.zip"), ("out", "out/model_run.zip")):
        ran = mdl(trained, "pack", "run", "-o", target)
        assert (ran.code, ran.out) == (0, f"{trained.home / place}\n"), ran.err
    command = trained.command("pack", "run", "-o", "-")
    piped = subprocess.run(command, env=trained.environ, cwd=trained.home, capture_output=True, check=True)
    assert piped.stdout == (trained.home / "mine.zip").read_bytes() == (trained.home / "out/model_run.zip").read_bytes()
    assert set(read_whole(trained.home / "mine.zip")) == {"config.json", "model.safetensors", MANIFEST}


def test_the_document(mdl: Inside, trained: Shell) -> None:
    """--json tells what is true of the archive on the disk; a refusal is a document too, with its exit code."""
    document = mdl(trained, "pack", "run", "--json").document
    archive = trained.home / "model_run.zip"
    data = archive.read_bytes()
    assert [document[key] for key in ("schema", "ok", "exit_code", "error")] == ["mdl.pack/1", True, 0, None]
    assert (document["archive"], document["path"]) == (archive.name, str(archive))
    assert (document["bytes"], document["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert document["files"] == len(read_whole(archive)) - 1 == 2
    assert [one["path"] for one in document["skipped"] if one["why"]] == [
        "checkpoint-500",
        "checkpoint-1000",
        "train.log",
    ]
    ran = mdl(trained, "pack", "run", "--checkpoint", "nope", "--json")
    assert (ran.code, ran.document["exit_code"], ran.document["ok"]) == (3, 3, False)
    assert (ran.document["error"]["code"], ran.document["path"]) == ("NOTFOUND", None)


@pytest.mark.fault(217)
def test_a_dry_run_writes_nothing(mdl: Inside, trained: Shell) -> None:
    """-n shows each file that would be packed and where to, and writes not a byte."""
    document, ran = mdl(trained, "pack", "run", "-n", "--json").document, mdl(trained, "pack", "run", "-n")
    assert ran.code == 0
    assert {one["path"] for one in document["members"]} == {line.split()[-1] for line in ran.out.splitlines()[1:]}
    assert (document["sha256"], document["files"]) == (None, 2)
    assert document["bytes"] == sum(one["size"] for one in document["members"])
    assert ("model_run.zip" in ran.err, "train.log" in ran.err) == (True, True)
    assert os.listdir(trained.home) == ["run"]


@pytest.mark.fault(218)
def test_globs_choose(mdl: Inside, trained: Shell) -> None:
    """--include keeps what matches, --exclude drops what matches; if nothing is left, also of globs that climb or
    explode, it is 3."""
    words = ("--include", "*.json", "--exclude", "checkpoint-500/*", "-o", "x.zip")
    assert mdl(trained, "pack", "run", *words).code == 0
    names = {"config.json", "checkpoint-1000/config.json", "checkpoint-1000/trainer_state.json", MANIFEST}
    assert set(read_whole(trained.home / "x.zip")) == names
    for globs in (["*.nothing"], ["../*", "/etc/*", "*a" * 60 + "b", "{a,b}" * 40]):
        words = tuple(word for glob in globs for word in ("--include", glob))
        assert mdl(trained, "pack", "run", *words, "-o", "y.zip").code == 3
    assert not (trained.home / "y.zip").exists()


def test_inference_only(mdl: Inside, trained: Shell) -> None:
    """--inference-only leaves the optimizer and the trainer's record behind and says so. DeepSpeed's shards alone are
    3, and the tool that merges them is named."""
    ran = mdl(trained, "pack", "run", "--checkpoint", "latest", "--inference-only", "--json")
    assert set(read_whole(Path(ran.document["path"]))) == {"config.json", "model.safetensors", MANIFEST}
    assert {one["path"] for one in ran.document["skipped"]} == {"optimizer.pt", "trainer_state.json"}
    folder = trained.home / "run" / "checkpoint-1000"
    (folder / "model.safetensors").unlink()
    (folder / "global_step1000").mkdir()
    (folder / "latest").write_text("global_step1000")
    (folder / "global_step1000" / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"x")
    ran = mdl(trained, "pack", "run", "--checkpoint", "checkpoint-1000", "--inference-only", "-o", "x.zip")
    assert (ran.code, ran.out, "zero_to_fp32.py" in ran.err) == (3, "", True)
    assert not (trained.home / "x.zip").exists()


def test_what_is_said_of_an_odd_pack(mdl: Inside, trained: Shell) -> None:
    """An archive that had the optimizer state too is not replaced without a word by one for inference, and a folder in
    which nothing is recognised is not packed without one."""
    words = ("pack", "run", "--checkpoint", "latest")
    replaced = "is replaced: it had all of the checkpoint"
    told = [mdl(trained, *words, *more).err for more in ((), ("--inference-only",), ("--inference-only",), ())]
    assert [replaced in err for err in told] == [False, True, False, False]
    (trained.home / "notes").mkdir()
    (trained.home / "notes" / "a.txt").write_text("x")
    assert "no model is recognised in this folder" in mdl(trained, "pack", "notes").err
    assert "no model is recognised" not in mdl(trained, "pack", "run").err


def bf16(count: int) -> bytes:
    """Weights as trainings make them, two bytes each: the exponents repeat, the rest is noise."""
    chance = random.Random(1)
    return b"".join(struct.pack("<f", chance.gauss(0, 0.02))[2:] for _ in range(count))


@pytest.mark.parametrize(("mode", "deflated"), [("store", ""), ("deflate", "noise text bf16"), ("auto", "text bf16")])
def test_each_file_is_packed_as_suits_it(mdl: Inside, tmp_path: Path, mode: str, deflated: str) -> None:
    """store and deflate do as they say; auto stores noise and deflates text and bf16 weights, small and streamed."""
    run = tmp_path / "run"
    run.mkdir()
    small = {"noise": noise(50_000), "text": b"word " * 9_000, "bf16": bf16(30_000)}
    for name, data in small.items():
        (run / f"{name}.bin").write_bytes(data)
        (run / f"large-{name}.bin").write_bytes(data * (2**20 // len(data) + 2) if name != "noise" else noise(2**21))
    assert mdl(Shell(tmp_path), "pack", "run", "--all", "--compress", mode).code == 0
    read_whole(tmp_path / "model_run.zip")
    with zipfile.ZipFile(tmp_path / "model_run.zip") as opened:
        method = {one.filename: one.compress_type for one in opened.infolist()}
    for name in small:
        wanted = zipfile.ZIP_DEFLATED if name in deflated.split() else zipfile.ZIP_STORED
        assert (method[f"{name}.bin"], method[f"large-{name}.bin"]) == (wanted, wanted), name


@pytest.mark.fault(216)
def test_the_same_tree_is_the_same_bytes(mdl: Inside, trained: Shell) -> None:
    """Neither times nor the place nor the order of making them change a byte of the archive."""
    assert mdl(trained, "pack", "run", "-o", "a.zip").code == 0
    copy = trained.home / "elsewhere" / "run"
    for path in sorted((trained.home / "run").rglob("*"), reverse=True):
        if path.is_file():
            to = copy / path.relative_to(trained.home / "run")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            os.utime(to, (1, 86_400 * 365))
    assert mdl(trained, "pack", "elsewhere/run", "-o", "b.zip").code == 0
    assert (trained.home / "a.zip").read_bytes() == (trained.home / "b.zip").read_bytes()


@pytest.mark.fault(213)
def test_times_modes_and_empty_folders(mdl: Inside, trained: Shell) -> None:
    """Every member bears one date; files are 0644 or 0755 by their own x bit; empty folders stay."""
    run = trained.home / "run"
    (run / "void" / "inner").mkdir(parents=True)
    (run / "tool.sh").write_text("#!/bin/sh\n")
    (run / "tool.sh").chmod(0o4711)
    (run / "config.json").chmod(0o600)
    for path, moment in ((run / "tool.sh", 0), (run / "config.json", 5_000_000_000)):
        os.utime(path, (moment, moment))
    assert mdl(trained, "pack", "run").code == 0
    with zipfile.ZipFile(trained.home / "model_run.zip") as opened:
        modes = {one.filename: one.external_attr >> 16 for one in opened.infolist()}
        assert {one.date_time for one in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    wanted = {"void/inner/": stat.S_IFDIR | 0o755, "tool.sh": stat.S_IFREG | 0o755}
    assert {name: modes.pop(name) for name in wanted} == wanted
    assert set(modes.values()) == {stat.S_IFREG | 0o644}


def test_an_empty_folder_is_no_file(mdl: Inside, trained: Shell) -> None:
    """It is packed and listed, and counted neither in the plan nor in the archive."""
    (trained.home / "run" / "void").mkdir()
    plan = mdl(trained, "pack", "run", "-n", "--json").document
    assert (plan["files"], [member["path"] for member in plan["members"]][-1]) == (2, "void")
    assert "2 files, " in mdl(trained, "pack", "run", "-n").err
    ran = mdl(trained, "pack", "run", "--json", "--progress", "lines")
    assert (ran.document["files"], "plan: 2 files" in ran.err) == (2, True)
    assert "plan: 3 files" in mdl(trained, "unpack", "model_run.zip", "--to", "out").err  # the manifest is one


@pytest.mark.parametrize("words", ["-o - --json", "--logs --checkpoint latest", "--logs --inference-only"])
def test_usage(mdl: Inside, trained: Shell, words: str) -> None:
    """The document and the archive never share stdout, and logs go with no choice of a model: 2, and no archive."""
    assert mdl(trained, "pack", "run", *words.split()).code == 2
    assert os.listdir(trained.home) == ["run"]
    dry = mdl(trained, "pack", "run", "-o", "-", "--json", "-n")
    assert (dry.code, dry.document["path"]) == (0, None)


# Where the archive goes.


@pytest.mark.fault(214, 216)
def test_an_archive_in_the_run_does_not_swallow_itself(mdl: Inside, trained: Shell) -> None:
    """Packed into its own run, again and again, it holds the model and neither itself nor another of its archives."""
    inside = Shell(trained.home / "run")
    (inside.home / "old.zip").write_bytes(b"not mdl's")
    digests = []
    for words in ((), ("--checkpoint", "latest"), (), ("-o", "mine.zip"), ("-o", "mine.zip")):
        digests.append(mdl(inside, "pack", ".", *words, "--json").document["sha256"])
    assert digests[0] == digests[2]
    assert len(read_whole(inside.home / "model_run.zip")) == len(read_whole(inside.home / "mine.zip")) == 4
    ran = mdl(inside, "pack", ".", "--all", "--exclude", "old.zip", "--exclude", "mine.zip")
    assert not [name for name in read_whole(inside.home / "model_run.zip") if name.endswith(".zip")]
    assert "left out: model_run_checkpoint-1000.zip, an archive that mdl made of this run" in ran.err


@pytest.mark.parametrize("name", ["model_run.zip", "policy.zip"])
def test_a_model_that_is_a_zip_is_not_replaced(mdl: Inside, trained: Shell, name: str) -> None:
    """An archive never takes the place of a file of the run, whatever its suffix: there may be no other copy. Neither
    does it of an archive that mdl made of another run."""
    model = put(trained.home / "run" / name, stable_baselines_zip())
    other = write(trained.home / "other", "model.safetensors config.json")
    for words in ((), ("--force",), ("-f",)):
        if words == ("-f",):
            done(mdl(trained, "pack", str(other), "-o", f"run/{name}", "--force"))
            words = ("--force",)
        before = model.read_bytes()
        ran = mdl(trained, "pack", "run", "-o", f"run/{name}", *words)
        assert (ran.code, model.read_bytes()) == (7, before)
        assert "--force" not in ran.err


@pytest.mark.parametrize("order", [1, -1])
def test_the_finished_model_is_packed_alone(mdl: Inside, trained: Shell, order: int) -> None:
    """Beside its checkpoints a finished model is packed without them, which is said with their number and size, also by
    -n; --all packs the folder as it is, with its logs. If there are only checkpoints all are packed, and the latest is
    named."""
    for words in [("-n",), ()][::order]:
        err = mdl(trained, "pack", "run", *words).err
        assert "left out: 2 checkpoints, 240.2 kB; --all packs them, --checkpoint NAME one\n" in err
        assert "left out: checkpoint-500" not in err
    alone = read_whole(trained.home / "model_run.zip")
    ran = mdl(trained, "pack", "run", "--all")
    whole = read_whole(trained.home / "model_run.zip")
    assert ("checkpoint" in ran.err, len(whole)) == (False, 12)
    assert alone.keys() - {MANIFEST} == {name for name in whole if "/" not in name} - {MANIFEST, "train.log"}
    assert mdl(trained, "pack", "run", "--all", "--checkpoint", "latest").code == 2
    (trained.home / "run" / "model.safetensors").unlink()
    ran = mdl(trained, "pack", "run")
    assert "no finished model: all 2 checkpoints are packed; --checkpoint checkpoint-1000 packs the latest" in ran.err
    assert len(read_whole(trained.home / "model_run.zip")) == 10
    assert "--checkpoint checkpoint-1000 is the latest" in mdl(trained, "pack", "run", "--inference-only").err


@pytest.mark.parametrize(
    ("saved", "alone"),
    [
        ("config.json model.safetensors checkpoints/checkpoint-{1,2}/{model.safetensors,optimizer.pt}", "config model"),
        ("lora.safetensors lora-{000001,000002}.safetensors config.toml", "config lora"),
        ("model.safetensors checkpoints/step_{1,2}.pt", "model"),
        ("model/model.safetensors checkpoint-{1,2}/model.safetensors", "model"),
    ],
)
def test_a_finished_model_of_any_layout(mdl: Inside, tmp_path: Path, saved: str, alone: str) -> None:
    """The checkpoints beside a finished model are left out in whichever folder they lie, and in no folder at all."""
    write(tmp_path / "run", saved)
    members = mdl(Shell(tmp_path), "pack", "run", "-n", "--json").document["members"]
    assert sorted(one["path"].partition(".")[0] for one in members) == alone.split()


@pytest.mark.parametrize("there", [b"my other file", archive_of("another"), None])
def test_a_file_of_somebody_else_is_not_replaced(mdl: Inside, trained: Shell, there: bytes | None) -> None:
    """What stands under the archive's name and is no archive of this run stays, with 7, also for -n; --force replaces
    it. An archive of this run, also of another checkpoint, is replaced."""
    place = trained.home / "model_run.zip"
    if there is None:
        assert mdl(trained, "pack", "run", "--checkpoint", "500", "-o", place.name).code == 0
    else:
        place.write_bytes(there)
        for words in (("-n",), (), ("-o", place.name)):
            ran = mdl(trained, "pack", "run", *words)
            assert (ran.code, "--force" in ran.err, place.read_bytes()) == (7, True, there)
    before = place.read_bytes()
    assert mdl(trained, "pack", "run", *(["--force"] if there else [])).code == 0
    assert place.read_bytes() != before


@pytest.mark.fault(214)
@pytest.mark.parametrize("name", ["config.json", "train.log", ".env", "../fifo"])
def test_what_is_never_written_over(mdl: Inside, trained: Shell, name: str) -> None:
    """-o that names a file of the run, or what is not a file, is 7, and that stays what it was."""
    place = trained.home / "run" / name
    (trained.home / "run" / ".env").write_text("hush")
    os.mkfifo(trained.home / "fifo")
    before = place.lstat()
    ran = mdl(trained, "pack", "run", "-o", f"run/{name}")
    assert (place.lstat().st_ino, place.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (ran.code, ran.out) == (7, "")


@pytest.mark.fault(214)
def test_an_older_archive_is_replaced_in_one_step(mdl: Inside, trained: Shell) -> None:
    """A program that has the older archive open goes on reading it whole; a link to it stays a link."""
    mdl(trained, "pack", "run", "--logs", "-o", "real.zip")
    (trained.home / "link.zip").symlink_to("real.zip")
    with (trained.home / "real.zip").open("rb") as older:
        assert mdl(trained, "pack", "run", "-o", "link.zip").out == f"{trained.home / 'real.zip'}\n"
        with zipfile.ZipFile(older) as opened:
            assert "train.log" in opened.namelist()
    assert (trained.home / "link.zip").is_symlink()
    assert "model.safetensors" in read_whole(trained.home / "real.zip")
    assert sorted(os.listdir(trained.home)) == ["link.zip", "real.zip", "run"]


def test_a_folder_that_is_not_there(mdl: Inside, trained: Shell) -> None:
    """-o into no folder is 7 and names that folder, not a name of mdl's own."""
    ran = mdl(trained, "pack", "run", "-o", "nowhere/x.zip")
    assert (ran.code, ran.out) == (7, "")
    assert ("nowhere" in ran.err, "mdl-tmp" in ran.err) == (True, False)


def test_a_terminal_gets_no_archive(trained: Shell) -> None:
    """-o - is 2 if stdout is a terminal, before a byte is written."""
    ours, theirs = os.openpty()
    try:
        command = trained.command("pack", "run", "-o", "-")
        child = subprocess.run(command, env=trained.environ, cwd=trained.home, stdout=theirs, stderr=-1, check=False)
        os.set_blocking(ours, False)
        assert (child.returncode, b"terminal" in child.stderr) == (2, True)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(("redirection", "codes"), [("> /dev/full", {7}), (">&-", {*range(1, 256)})])
def test_a_stdout_that_takes_nothing(trained: Shell, redirection: str, codes: set[int]) -> None:
    """An archive that its stdout has no room for is 7; if stdout is closed, it is not 0."""
    prefix = ("sh", "-c", f'"$@" {redirection}', "-")
    assert trained.run("pack", "run", "-o", "-", prefix=prefix).code in codes


CUT = [".pt", ".pth", ".ckpt", ".safetensors", ".keras", ".weights.h5", ".npz", ".gguf"]


@pytest.mark.parametrize("suffix", CUT)
def test_a_cut_file_is_never_packed_unsaid(mdl: Inside, shell: Shell, suffix: str) -> None:
    """A checkpoint whose file lacks its end was cut while it was saved: the one before is the latest, and the newer one
    is named; it is packed itself only with --allow-incomplete."""
    run = write(shell.home / "run", f"epoch_{{1,2}}{suffix}")
    cut = run / f"epoch_2{suffix}"
    os.truncate(cut, cut.stat().st_size - 30)
    rows = mdl(shell, "checkpoints", "run", "--json").document["checkpoints"]
    assert [(row["name"], row["complete"], row["latest"]) for row in rows] == [
        (f"epoch_1{suffix}", True, True),
        (f"epoch_2{suffix}", False, False),
    ]
    assert rows[1]["note"].startswith(f"epoch_2{suffix}: ")
    ran = mdl(shell, "pack", "run", "--checkpoint", "latest")
    assert (ran.code, f"epoch_2{suffix}" in ran.err) == (0, True), ran.err
    assert set(read_whole(shell.home / f"model_run_epoch_1{suffix}.zip")) == {f"epoch_1{suffix}", MANIFEST}
    refused = mdl(shell, "pack", "run", "--checkpoint", "2")
    assert (refused.code, f"epoch_2{suffix}" in refused.err, "--allow-incomplete" in refused.err) == (6, True, True)
    assert mdl(shell, "pack", "run", "--checkpoint", "2", "--allow-incomplete").code == 0
    assert mdl(shell, "unpack", f"model_run_epoch_2{suffix}.zip", "--to", "there").code == 0  # its manifest says so


def test_a_cut_file_within_a_checkpoint(mdl: Inside, shell: Shell) -> None:
    """A trainer's record beside it does not make a cut file whole, be it the model, a shard or the optimizer."""
    for name in ("pytorch_model.bin", "optimizer.pt"):
        run = write(shell.home / name, "checkpoint-{1,2}/{pytorch_model.bin,optimizer.pt,trainer_state.json}")
        os.truncate(run / "checkpoint-2" / name, 500)
        [first, second] = mdl(shell, "checkpoints", name, "--json").document["checkpoints"]
        assert (first["latest"], second["complete"], second["latest"]) == (True, False, False), name


JUNK = (
    ".nfs0001",
    "._model.safetensors",
    ".fuse_hidden0000a1",
    "@eaDir/x",
    "lost+found/y",
    "config.json~",
    "desktop.ini",
)
WROTE = ("nohup.out", "slurm-12.out", "slurm-12.err", "train.o4711", "train.e4711", "stderr", "std.err.12")


def test_logs_and_junk_are_no_parts_of_the_model(mdl: Inside, trained: Shell) -> None:
    """What schedulers and shells write is a log; what file systems leave is junk, and is listed; the rest is packed."""
    write(trained.home / "own", f"model.safetensors {' '.join(WROTE)} {' '.join(JUNK)}", {"config.json": {"a": 1}})
    ran = mdl(trained, "pack", "own")
    assert ran.code == 0, ran.err
    assert {*read_whole(trained.home / "model_own.zip")} == {"model.safetensors", "config.json", MANIFEST}
    for name in JUNK:
        assert f"left out: {name.split('/')[0]} (" in ran.err
    assert mdl(trained, "pack", "own", "--logs").code == 0
    assert {*read_whole(trained.home / "logs_own.zip")} == {*WROTE, MANIFEST}
    assert mdl(trained, "pack", "own", "--all", "--force").code == 0
    assert {*read_whole(trained.home / "model_own.zip")} == {"model.safetensors", "config.json", *WROTE, MANIFEST}


@pytest.mark.parametrize(("change", "code"), [("grows", 0), ("shrinks", 6), ("is another", 6), ("is deleted", 6)])
@pytest.mark.parametrize("size", [100, 3 * 2**20])
def test_a_log_that_is_written_meanwhile(trained: Shell, change: str, code: int, size: int) -> None:
    """A log is read to the size that it had at first; one that is cut or put in another's place has changed."""
    run = write(trained.home / "own", "model.safetensors", {"nohup.out": "x" * size})
    log = run / "nohup.out"
    plan = plan_pack(run, trained.home / "x.zip", whole_run=True)

    def changed(event: Event) -> None:
        if not isinstance(event, Started):
            return
        if change == "grows":
            log.write_text("x" * size + "more")
        elif change == "shrinks":
            log.write_text("x")
        else:
            log.rename(run / "nohup.old")
            if change == "is another":
                log.write_text("x" * size)

    if code:
        with pytest.raises(ProtocolError) as caught:
            write_pack(plan, on_event=changed)
        assert (caught.value.exit_code, "nohup.out" in str(caught.value.item)) == (code, True)
    else:
        write_pack(plan, on_event=changed)
        assert read_whole(trained.home / "x.zip")["nohup.out"] == b"x" * size


@pytest.mark.parametrize("moment", ["before it is read", "after it was read"])
def test_a_checkpoint_that_is_deleted_meanwhile(trained: Shell, moment: str) -> None:
    """Rotation took it away: 6, saying that it was deleted, and that the same command takes the one there is now."""
    run = write(trained.home / "own", "checkpoint-{500,1000}/{model.safetensors,trainer_state.json,a.bin}")
    plan = plan_pack(run, trained.home / "x.zip", checkpoint="latest")

    def rotate(_event: object = None) -> None:
        shutil.rmtree(run / "checkpoint-1000", ignore_errors=True)

    with pytest.raises(ProtocolError) as caught, pytest.MonkeyPatch.context() as patch:
        if moment == "after it was read":
            patch.setattr(type(plan.selection.tree), "is_unchanged", lambda _tree, _entry: rotate())
        write_pack(plan, on_event=rotate if moment == "before it is read" else lambda _event: None)
    error = caught.value
    assert ("deleted while it was read" in error.message, "same command" in (error.hint or "")) == (True, True), error
    assert "--allow-changing" not in (error.hint or "")
    assert not (trained.home / "x.zip").exists()


def test_a_data_set_is_named(mdl: Inside, trained: Shell) -> None:
    """Recordings, pictures and tables within a run are packed as asked, and one line counts them and says what leaves
    them out; that line's flags do."""
    write(trained.home / "own", "G_100.pth config.json wavs/{1,2}.wav wavs/list.txt img/a/1.png img/b.jpg results.csv")
    ran = mdl(trained, "pack", "own", "--all")
    said = [line for line in ran.err.splitlines() if "packed too" in line]
    assert (ran.code, len(said)) == (0, 1), ran.err
    assert "2 pictures and 2 recordings" in said[0]
    flags = shlex.split(said[0].partition("; ")[2].removesuffix(" leaves them out"))
    ran = mdl(trained, "pack", "own", "--all", "--force", *flags)
    held = {*read_whole(trained.home / "model_own.zip")} - {MANIFEST}
    assert (held, "packed too" in ran.err) == ({"G_100.pth", "config.json", "wavs/list.txt", "results.csv"}, False)


@pytest.mark.parametrize("words", ["", "--checkpoint latest", "--checkpoint latest --inference-only", "--all", "-n"])
def test_every_pack_of_an_adapter_names_its_base(mdl: Inside, trained: Shell, words: str) -> None:
    """An adapter needs its base model: each pack says which one, and that a path is one of another machine; once."""
    adapter = "{adapter_model.safetensors,adapter_config.json}"
    config = {"base_model_name_or_path": "/data/models/base"}
    state = {"global_step": 10}
    contents = {f"{base}adapter_config.json": config for base in ("", "checkpoint-10/")}
    contents["checkpoint-10/trainer_state.json"] = state
    write(trained.home / "own", f"{adapter} checkpoint-10/{adapter}", contents)
    ran = mdl(trained, "pack", "own", *words.split())
    assert ran.code == 0, ran.err
    assert ran.err.count("needs its base model, /data/models/base, a folder of the machine that it was trained on") == 1


LIGHTNING = "version_0/{checkpoints/{epoch=1-step=10.ckpt,epoch=2-step=20.ckpt},hparams.yaml}"
BESIDE = {
    "Lightning": (LIGHTNING, "epoch=1-step=10.ckpt", "epoch=1-step=10.ckpt hparams.yaml"),
    "Lightning with Hydra above": (
        f"{LIGHTNING} .hydra/{{config.yaml,overrides.yaml}}",
        "epoch=2-step=20.ckpt",
        "epoch=2-step=20.ckpt hparams.yaml config.yaml",
    ),
    "any suffix": ("ckpts/{step_1.pt,step_2.pt} config.toml args.json", "2", "step_2.pt config.toml args.json"),
    "the nearest": (
        "config.yaml a/config.yaml a/checkpoints/{step_1.pt,step_2.pt}",
        "latest",
        "step_2.pt config.yaml",
    ),
    "not what it has": (
        "config.json tokenizer.json checkpoint-{5,9}/{model.safetensors,config.json,trainer_state.json}",
        "checkpoint-9",
        "model.safetensors config.json trainer_state.json tokenizer.json",
    ),
    "no adapter's file for a model": (
        "adapter_config.json checkpoint-{5,9}/{model.safetensors,trainer_state.json}",
        "checkpoint-9",
        "model.safetensors trainer_state.json",
    ),
    "settings of the same stem": ("step_12.{pt,json} step_13.{pt,json}", "13", "step_13.pt step_13.json"),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_belongs_to_a_checkpoint_goes_along(mdl: Inside, trained: Shell, case: str) -> None:
    """Its settings, of any suffix, go along wherever between it and the run's folder they lie."""
    files, pick, expected = BESIDE[case]
    run = "own/a" if case == "the nearest" else "own"
    write(trained.home / "own", files, {path: {} for path in files.split() if path.endswith("adapter_config.json")})
    ran = mdl(trained, "pack", run, "--checkpoint", pick, "-o", "x.zip")
    assert ran.code == 0, ran.err
    assert {*read_whole(trained.home / "x.zip")} - {MANIFEST} == {*expected.split()}


def test_a_name_that_is_taken(mdl: Inside, trained: Shell) -> None:
    """Two files of one name: the second is called by its path below the run."""
    write(trained.home / "own", "args.json conf/args.yaml checkpoints/{step_1.pt,ARGS.YAML} .hydra/config.yaml")
    write(trained.home / "own", "checkpoints/{step_1.json,config.json} step_1.json")
    ran = mdl(trained, "pack", "own", "--checkpoint", "1", "-o", "x.zip")
    assert ran.code == 0, ran.err
    assert {"step_1.pt", "step_1.json", "config.json", "args.json"} <= {*read_whole(trained.home / "x.zip")}


def test_exports_are_listed(mdl: Inside, trained: Shell) -> None:
    """What lies beside the weights under the same name, in another format, is left out and listed; its name adds it."""
    write(
        trained.home / "own",
        "args.yaml weights/{best.pt,last.pt,best.onnx,best.engine,best_saved_model/saved_model.pb}",
    )
    ran = mdl(trained, "pack", "own", "--checkpoint", "best", "--json", "-o", "x.zip")
    assert ran.code == 0, ran.err
    whys = {one["path"]: one["why"] for one in ran.document["skipped"]}
    assert {path for path, why in whys.items() if "of the same name" in why} == {
        *("weights/best.onnx", "weights/best.engine", "weights/best_saved_model")
    }
    assert {*read_whole(trained.home / "x.zip")} - {MANIFEST} == {"weights/best.pt", "args.yaml"}
    ran = mdl(trained, "pack", "own", "--checkpoint", "best", "--include", "weights/best.onnx", "-o", "y.zip")
    assert {*read_whole(trained.home / "y.zip")} - {MANIFEST} == {"weights/best.pt", "weights/best.onnx", "args.yaml"}


def test_what_is_left_out_is_told_in_few_lines(tmp_path: Path, mdl: Inside) -> None:
    """A run with thousands of files that are left out is packed with twenty lines about them, and their number."""
    shell = machine(tmp_path / "home")
    run = make_run(shell.home)
    for number in range(1000):
        (run / f"{number}.socket").symlink_to("nowhere")
    ran = done(mdl(shell, "pack", str(run), "--all", "-n"))
    assert ran.err.count("left out: ") == 20
    assert "and 980 more" in ran.err
    assert len(done(mdl(shell, "pack", str(run), "--all", "-n", "--json")).document["skipped"]) >= 1000
