"""``mdl fetch`` from a bucket, where the results of a job are a folder as it was synced: what of it is the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from support.data import files_below
from support.moto_store import s3_api
from support.shell import Inside, Shell, done, settings
from support.weights import whole_file

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(139)


@pytest.fixture
def shell(s3_url: str, tmp_path: Path) -> Shell:
    """A machine with the remote ``store``, an empty bucket."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_ENDPOINT_URL_S3": s3_url}
    shell = Shell(tmp_path, extra=keys)
    bucket = bucket_of(shell)
    settings(shell, f'[remotes.store]\nkind = "bucket"\nurl = "s3://{bucket}/pre"\n')
    s3_api(s3_url).create_bucket(Bucket=bucket)
    return shell


def bucket_of(shell: Shell) -> str:
    """The name of its own bucket: tests share a store."""
    return "b" + hashlib.sha256(str(shell.home).encode()).hexdigest()[:20]


Put = Callable[[Iterable[str] | Mapping[str, bytes]], None]


@pytest.fixture
def put(s3_url: str, shell: Shell) -> Put:
    """Put whole files of these names below ``results/p1/``; of a path that begins with a slash, below the prefix."""
    api = s3_api(s3_url)

    def put(files: Iterable[str] | Mapping[str, bytes]) -> None:
        for name in files:
            data = files[name] if isinstance(files, Mapping) else content_of(name)
            key = f"pre{name}" if name.startswith("/") else f"pre/results/p1/{name}"
            api.put_object(Bucket=bucket_of(shell), Key=key, Body=data)

    return put


def content_of(name: str) -> bytes:
    if name.endswith((".safetensors", ".pt", ".ckpt", ".pth", ".bin")):
        return whole_file(name)
    return b"{}" if name.endswith(".json") else b"text\0"


def fetched(shell: Shell, folder: str = "p1") -> set[str]:
    return set(files_below(shell.models / "store" / folder))


LITTER = {"._w.safetensors": APPLE_DOUBLE, ".nfs0001": b"x", "sub/.DS_Store": b"x", "@eaDir/w.safetensors": b"x"}


def test_litter_is_not_fetched(mdl: Inside, shell: Shell, put: Put, tmp_path: Path) -> None:
    """What file managers left beside the results is named in one line, and does not stop the job; ``--all`` brings it
    as it is."""
    put(["w.safetensors", "config.json"])
    put(LITTER)
    ran = done(mdl(shell, "fetch", "store", "p1", "--release", str(tmp_path / "site")))
    assert fetched(shell) == {"w.safetensors", "config.json"}
    assert ran.err.count("--all fetches them") == 1
    done(mdl(shell, "fetch", "store", "p1", "--include", "*.safetensors"))
    assert fetched(shell) == {"w.safetensors", "config.json"}
    done(mdl(shell, "fetch", "store", "p1", "--all"))
    assert fetched(shell) == {"w.safetensors", "config.json", *LITTER}


def test_a_name_that_is_not_used_stops_nothing(mdl: Inside, shell: Shell, put: Put, tmp_path: Path) -> None:
    """Litter, logs and pictures under names that cannot be kept stay behind, of a job and of a prefix; weights under
    such a name are refused by it."""
    put(["w.safetensors", "a\u200cb.json", "~notes.txt"])
    put(["Icon\r", "logs//events.out", "samples//a.png"])
    kept = {"w.safetensors", "a\u200cb.json", "~notes.txt"}
    ran = done(mdl(shell, "fetch", "store", "p1"))
    assert fetched(shell) == kept
    assert ran.err.count("--all fetches them") == 1
    assert "left out: 2 files" in ran.err
    done(mdl(shell, "fetch", "store", "p1", "--offline"))
    place = f"s3://{bucket_of(shell)}/pre/results/p1"
    done(mdl(shell, "get", place, "--include", "*.safetensors", "--into", str(tmp_path / "w")))
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"w.safetensors", ".mdl"}
    done(mdl(shell, "get", place, "--into", str(tmp_path / "all")), 11)
    assert {path.name for path in (tmp_path / "all").iterdir()} == kept | {".mdl"}
    (shell.home / "catalog.toml").write_text(
        f'schema = 1\n[models.m]\nsource = "{place}"\nexclude = ["*//*", "Icon*"]\n'
    )
    done(mdl(shell, "lock"))
    done(mdl(shell, "get", "m", "--frozen"))
    done(mdl(shell, "verify", "m"))
    assert set(files_below(shell.models / "m")) == kept
    put({"lora//w.safetensors": b"x"})
    assert "lora//w.safetensors" in done(mdl(shell, "fetch", "store", "p1"), 11).err


@pytest.mark.parametrize(
    ("here", "refused", "words", "kept"),
    [
        ("samples/a.png", "samples//b.png", (), {"samples/a.png"}),
        ("logs/a.log", "logs//b.log", (), {"logs/a.log"}),
        ("w.safetensors", "logs//b.log", ("--logs",), set()),
        ("samples/a.png", "lora//w.bin", (), set()),
    ],
)
def test_a_name_that_is_asked_for_is_refused_alone(
    mdl: Inside, shell: Shell, put: Put, here: str, refused: str, words: tuple[str, ...], kept: set[str]
) -> None:
    """Where pictures and logs are all that a job has, they are its results: none is left out without a word."""
    put([here, refused])
    assert refused in done(mdl(shell, "fetch", "store", "p1", *words), 11).err
    assert fetched(shell) == kept


SHARDED = [f"step-100/{name}" for name in ("__0_0.distcp", "__1_0.distcp", ".metadata")]
"""A model in shards that nothing but the trainer reads."""
HF = [
    *(f"checkpoint-{step}/{name}" for step in (500, 1000) for name in ("model.safetensors", "config.json")),
    *(f"checkpoint-{step}/optimizer.pt" for step in (500, 1000)),
]


@pytest.mark.parametrize(
    ("files", "words", "names"),
    [
        ([*HF, "model.safetensors", "config.json"], (), {"model.safetensors", "config.json"}),
        (HF[:2] + HF[4:5], (), {"checkpoint-500/model.safetensors", "checkpoint-500/config.json"}),
        (HF, (), {name for name in HF if not name.endswith("optimizer.pt")}),
        ([*HF, "model.safetensors"], ("--all",), {*HF, "model.safetensors"}),
        (HF, ("--checkpoint", "latest"), {name for name in HF if name.startswith("checkpoint-1000/")}),
        (HF, ("--checkpoint", "500"), {name for name in HF if name.startswith("checkpoint-500/")}),
        (
            ["loss=0.9-epoch=1.ckpt", "loss=0.4-epoch=2.ckpt"],
            ("--checkpoint", "latest"),
            {"loss=0.4-epoch=2.ckpt"},
        ),
        (["epoch_1.pt", "best.pt"], ("--checkpoint", "best"), {"best.pt"}),
        (["lora/a.safetensors", "optimizer.pt"], (), {"lora/a.safetensors"}),
        (SHARDED, (), set(SHARDED)),
        (
            ["cat-000001.safetensors", "dog-000002.safetensors"],
            (),
            {"cat-000001.safetensors", "dog-000002.safetensors"},
        ),
        (["one.safetensors", "two.safetensors"], (), {"one.safetensors", "two.safetensors"}),
        (
            ["model.safetensors", "config.json", "ckpts/epoch_1.pt", "ckpts/epoch_2.pt"],
            (),
            {"model.safetensors", "config.json"},
        ),
        (["epoch_1.pt", "final.pt", "encoder.pt"], (), {"final.pt", "encoder.pt"}),
        (["checkpoints/epoch_1.pt", "checkpoints/final.pt", "a.yaml"], (), {"checkpoints/final.pt", "a.yaml"}),
        (
            ["model_0004999.pth", "model_final.pth", "config.yaml", "vocab.txt"],
            (),
            {"model_final.pth", "config.yaml", "vocab.txt"},
        ),
        (["dog_000001500.safetensors", "dog.safetensors", "config.yaml"], (), {"dog.safetensors", "config.yaml"}),
        (["y_1000.weights", "y_final.weights", "y.cfg", "y.names"], (), {"y_final.weights", "y.cfg", "y.names"}),
    ],
)
def test_what_of_a_folder_is_fetched(
    mdl: Inside, shell: Shell, put: Put, files: list[str], words: tuple[str, ...], names: set[str]
) -> None:
    """The finished model, else the only checkpoint, else all weights; what only a resumed training reads is left, and
    said. A checkpoint that is asked for comes as it is."""
    put(files)
    put({"/processes/p1.json": b'{"status": "completed"}'})
    ran = done(mdl(shell, "fetch", "store", "p1", *words))
    folder = f"p1_{words[1]}" if len(words) == 2 else "p1"
    assert fetched(shell, folder) == names
    is_part = not words and names != set(files)
    assert ("left out: " in ran.err, "--all takes all" in ran.err) == (is_part, is_part)
    assert done(mdl(shell, "fetch", "store", "p1", *words, "--json")).document["bytes_fetched"] == 0
    done(mdl(shell, "fetch", "store", "p1", *words, "--offline"))


def test_a_newer_checkpoint_that_is_not_complete(mdl: Inside, shell: Shell, put: Put) -> None:
    """The latest that is whole comes, and the one that is passed over is named, with why."""
    put([*HF, "checkpoint-1000/model.safetensors.tmp"])
    ran = done(mdl(shell, "fetch", "store", "p1", "--checkpoint", "latest", "--dry-run", "--json"))
    assert {file["path"].partition("/")[0] for file in ran.document["models"][0]["files"]} == {"checkpoint-500"}
    assert "not complete: checkpoint-1000 (" in ran.err
    assert "checkpoint-500 is taken" in ran.err


def test_a_number_never_takes_another_number(mdl: Inside, shell: Shell, put: Put) -> None:
    """The end of a metric, and the number of a version, name no checkpoint; a step goes before an epoch. What is loaded
    with a checkpoint comes with it; the archive of one, alone or with its folder, and weights that alone are called so,
    are meant by name."""
    losses = ["epoch=25-val_loss=0.31.ckpt", "epoch=3-val_loss=0.25.ckpt"]
    steps = ["step=2-epoch=1.ckpt", "step=20-epoch=2.ckpt"]
    versions = [f"version_1/checkpoints/epoch=0-step={step}.ckpt" for step in (5, 10)]
    finished = ["model_0004999.pth", "model_final.pth", "config.yaml"]
    archives = ["checkpoint-500.zip", "checkpoint-1500.zip", "checkpoint-1500.json"]
    folders = [f"step_{step}/{name}" for step in (500, 1500) for name in ("adapter.zip", "notes.txt")]
    folders += ["eval/step_1500/report.json", "a/ep3/x.zip", "b/ep3/x.zip", "version_7/x.zip"]
    nested = [f"out/lora/step_{step}/adapter_model.safetensors" for step in (500, 1500)]
    runs = ["a/checkpoint-500/model.safetensors", "b/checkpoint-1000/model.safetensors"]
    jobs = [losses, steps, versions, finished, archives, ["dog.safetensors", "notes.txt"], folders, nested, runs]
    put({f"/results/j{number}/{name}": content_of(name) for number, names in enumerate(jobs) for name in names})
    wanted = [
        (0, "25", losses[:1]),
        (0, "3", losses[1:]),
        (0, "31", []),
        (1, "2", steps[:1]),
        (2, "1", []),
        (2, "10", versions[1:]),
        (3, "4999", ["model_0004999.pth", "config.yaml"]),
        (4, "500", ["checkpoint-500.zip"]),
        (4, "checkpoint-1500", ["checkpoint-1500.zip"]),
        (4, "5", []),
        (5, "dog", ["dog.safetensors"]),
        (6, "step_1500", folders[2:4]),
        (6, "1500", folders[2:4]),
        (6, "00", []),
        (6, "3", []),
        (6, "7", []),
        (6, "latest", []),
        (7, "1500", nested[1:]),
        (7, "step_1500", nested[1:]),
        (8, "500", []),
    ]
    for number, checkpoint, names in wanted:
        ran = mdl(shell, "fetch", "store", f"j{number}", "--checkpoint", checkpoint, "--dry-run", "--json")
        document = done(ran, 0 if names else 3).document
        paths = {file["path"] for file in document["models"][0]["files"]}
        assert paths == set(names), (number, checkpoint)


def test_logs_and_pictures_are_left_and_said(mdl: Inside, shell: Shell, put: Put) -> None:
    """What is no result is left with its bytes in one line; nothing is said where a part of the job is asked for."""
    put({"w.safetensors": whole_file("w.safetensors"), "logs/a.txt": b"12345", "samples/b.png": b"123"})
    ran = done(mdl(shell, "fetch", "store", "p1", "--dry-run"))
    assert "left out: 2 files, 8 B: logs and pictures; --all takes all" in ran.err
    for word in ("--all", "--logs", "--checkpoint=final"):
        assert "left out" not in done(mdl(shell, "fetch", "store", "p1", "--dry-run", word)).err


def test_records_of_the_trainer_count(mdl: Inside, shell: Shell, put: Put) -> None:
    """Which checkpoint is the best is what the trainer recorded; a sharded one is whole if its index says so."""
    state = {"best_model_checkpoint": "run/checkpoint-500", "global_step": 1000}
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    put([name for name in HF if "model" not in name])
    put([f"checkpoint-{step}/model-00001-of-00001.safetensors" for step in (500, 1000)])
    for step in (500, 1000):
        put({f"checkpoint-{step}/model.safetensors.index.json": json.dumps(index).encode()})
        put({f"checkpoint-{step}/trainer_state.json": json.dumps(state | {"global_step": step}).encode()})
    done(mdl(shell, "fetch", "store", "p1", "--checkpoint", "best"))
    assert all(name.startswith("checkpoint-500/") for name in fetched(shell, "p1_best"))
    assert fetched(shell, "p1_best")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["epoch_3.pt", "step_900.pt"], ["epoch_3.pt", "step_900.pt"]),
        ([f"{run}/checkpoint-{step}/model.safetensors" for run in ("a", "b") for step in (1, 2)], ["a (2", "b (2"]),
        (["a.txt", "b.txt"], ["a.txt, b.txt"]),
    ],
)
def test_what_nobody_can_tell(mdl: Inside, shell: Shell, put: Put, files: list[str], named: list[str]) -> None:
    """Steps and epochs do not compare, and several runs have no latest: that is 3 with the candidates."""
    put(files)
    ran = done(mdl(shell, "fetch", "store", "p1", "--checkpoint", "latest"), 3)
    assert [name for name in named if name not in ran.err] == []
    assert "store: p1: no latest checkpoint" in ran.err
    assert "--all takes all" in ran.err
    assert ("/dev/null" in ran.err, "mdl pack" in ran.err) == (False, False)
    assert not fetched(shell, "p1_latest")


def test_results_of_a_managed_training_service(mdl: Inside, shell: Shell, put: Put) -> None:
    """Objects below the job's own folder are its results where there is neither a record nor ``results/``; that its
    status is unknown is said."""
    put({"/p7/output/w.safetensors": whole_file("w.safetensors")})
    ran = done(mdl(shell, "fetch", "store", "p7"))
    assert fetched(shell, "p7") == {"output/w.safetensors"}
    assert ran.err.count("its status is unknown") == 1
    done(mdl(shell, "verify", "store/p7"))
    nothing = done(mdl(shell, "fetch", "store", "p8"), 3).err
    assert "pre/results/p8/" in nothing
    assert "pre/p8/" in nothing
    done(mdl(shell, "fetch", "store", "results"), 3)
