"""The guide for remotes, docs/remotes.md: its commands are run, in their order, with the tables of docs/examples/."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import write_files
from support.moto_store import s3_api
from support.runpod_api import KEY, runpod_endpoint
from support.shell import Inside, Shell, done, settings
from support.trainer import training_server

ROOT = Path(__file__).parents[2]


def commands(guide: str, folder: Path) -> Iterator[list[str]]:
    """The words after ``mdl`` of each line of a set-up, with the guide's folders below ``folder``."""
    text = (
        (ROOT / "docs" / "remotes.md").read_text("utf-8").partition(f"<!-- {guide} -->\n```sh\n")[2].partition("```")[0]
    )
    lines = [line for line in text.splitlines() if line.startswith("mdl ")]
    assert len(lines) > 5
    for line in lines:
        yield [
            re.sub(r"^/(?=(srv|var/lib)/)", f"{folder}/root/", word) for word in shlex.split(line, comments=True)[1:]
        ]


def weights_of(job: str) -> bytes:
    """What a job's weights are here: bytes that nobody takes for a message."""
    return b"\x80\xff" + job.encode()


def example(name: str, **instead: str) -> str:
    """A file of examples/, with these URLs instead of its own."""
    text = (ROOT / "docs" / "examples" / f"{name}.toml").read_text("utf-8")
    for old, new in instead.items():
        pattern = rf'(?m)^{old}(\s*)= ".*?"'
        assert re.search(pattern, text), old
        text = re.sub(pattern, rf'{old}\1= "{new}"', text)
    return text


@pytest.fixture
def bucket(s3_url: str) -> str:
    """The URL of a store with the jobs of the guide."""
    api = s3_api(s3_url)
    api.create_bucket(Bucket="training")
    for job in ("p-17", "p-18"):
        record = f'{{"id": "{job}", "status": "completed", "created_at": "2026-01-0{job[-1]}T10:00:00"}}'
        files = {f"processes/{job}.json": record, f"results/{job}/lora/a.bin": weights_of(job)}
        files |= {f"results/{job}/samples/1.png": "png", f"results/{job}/logs/training.log": "log"}
        for key, data in files.items():
            api.put_object(
                Bucket="training", Key=f"lora/{key}", Body=data if isinstance(data, bytes) else data.encode()
            )
    return s3_url


def run_guide(mdl: Inside, shell: Shell, guide: str) -> None:
    """Every command of the guide works, and the last release that was rolled back to is that of p-17."""
    for words in commands(guide, shell.home):
        ran = done(mdl(shell, *words))
        if words[0] == "fetch" and "--release" in words:
            assert ran.out.startswith(str(shell.home))
    [current] = shell.home.glob("root/srv/*/current")
    [weights] = list(current.resolve().rglob("*.bin"))
    assert weights.read_bytes() == weights_of("p-17")


def test_from_a_bucket(mdl: Inside, bucket: str, tmp_path: Path) -> None:
    """From a table and a key to a model in service and back, and what would be cleaned."""
    shell = Shell(tmp_path, extra={"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret"})
    settings(shell, example("bucket", endpoint_url=bucket))
    run_guide(mdl, shell, "bucket")
    assert (shell.models / "store" / "p-17" / "samples" / "1.png").exists()


def test_from_an_endpoint(mdl: Inside, bucket: str, tmp_path: Path) -> None:
    """The same with a RunPod endpoint, whose workers write to a bucket."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret", "RUNPOD_API_KEY": KEY}
    shell = Shell(tmp_path, extra=keys)
    with runpod_endpoint(tmp_path) as endpoint:
        endpoint.api.workers.append("worker0")
        text = example("runpod", endpoint_url=bucket).replace(
            'endpoint    = "abc123"', f'base_url = "{endpoint.base_url}"'
        )
        settings(shell, text)
        (tmp_path / "root" / "var" / "lib" / "mdl").mkdir(parents=True)
        run_guide(mdl, shell, "runpod")
    assert "mdl_remote_up" in (tmp_path / "root" / "var" / "lib" / "mdl" / "gpu.prom").read_text()


def test_from_a_training_server(mdl: Inside, tmp_path: Path) -> None:
    """The same with a training server, whose zips are unpacked."""
    for job in ("p-17", "p-18"):
        files = {"a.bin": weights_of(job), "checkpoint-5/a.bin": weights_of(job), "training.log": b"log"}
        write_files(tmp_path / "runs" / job, files | {"job.json": b'{"status": "completed"}'})
    with training_server(tmp_path / "runs") as url:
        shell = Shell(tmp_path)
        settings(shell, example("trainer", url=url))
        for words in commands("trainer", tmp_path):
            done(mdl(shell, *words))
    assert (tmp_path / "root" / "srv" / "tts" / "current" / "a.bin").read_bytes() == weights_of("p-17")
