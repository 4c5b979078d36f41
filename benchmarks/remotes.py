"""Results of remote jobs, fetched with SIGKILLs on the way: what the store serves, and whether the bytes are right.

Two ways: from a bucket (`kind = "bucket"`), and from a RunPod endpoint whose worker answers with a presigned link that
expires after a few seconds. The store is a real SeaweedFS, the worker one of the real SDK. The claim: the right digest
every time, and a SIGKILL costs at most 2.5 MB that are served again: what is written between two syncs, and what was
on its way. For 256 MB and ten kills that is 1.10 times the file.

python benchmarks/remotes.py --size 256M --kills 10
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import harness as bench
from support.relay import Meter, relaying
from support.runpod_api import KEY, Endpoint, runpod_endpoint, wait_for_workers
from support.runpod_handler import pattern
from support.seaweed import Seaweed, seaweed

from mdl.units import parse_size

_MOST_A_KILL = 2_500_000
_LINK_SECONDS = "3"
_PATH = "lora/weights.bin"


def main() -> int:
    parser = bench.flags(__doc__)
    parser.add_argument("--size", type=lambda text: parse_size(text, "--size"), default=256_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0, help="what the whole transfer takes undisturbed")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(bench.folder(args.dir))
        store = stack.enter_context(seaweed(folder / "store"))
        meter = Meter(rate=args.size / args.seconds)
        relay = stack.enter_context(relaying(int(store.url.rpartition(":")[2]), meter.greet))
        fill(store, args.size)
        worker = {
            "S3_BUCKET": "training",
            "S3_ENDPOINT": relay.url,
            "S3_LINK_SECONDS": _LINK_SECONDS,
            "S3_KEY": store.environ["AWS_ACCESS_KEY_ID"],
            "S3_SECRET": store.environ["AWS_SECRET_ACCESS_KEY"],
        }
        endpoint = stack.enter_context(runpod_endpoint(folder, 1, worker))
        train(endpoint, args.size)
        config = folder / "home" / ".config" / "mdl"
        config.mkdir(parents=True)
        (config / "config.toml").write_text(
            f'[remotes.store]\nkind = "bucket"\nurl = "s3://training"\nendpoint_url = "{relay.url}"\n'
            f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{endpoint.base_url}"\nallow_hosts = ["127.0.0.1"]\n'
        )
        environ = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "RUNPOD_API_KEY": KEY, **store.environ}
        rows = [campaign(name, args, meter, environ, folder) for name in ("store", "gpu")]
    what = f"{args.size / 1e6:.0f} MB, {args.seconds:g} s undisturbed"
    bench.table(("remote", "kills", "right bytes", "served / size"), rows, what)
    return bench.verdict()


def campaign(
    name: str, args: argparse.Namespace, meter: Meter, environ: dict[str, str], folder: Path
) -> tuple[str, ...]:
    """One download with kills, and its row."""
    draw, before, kills = random.Random(name), meter.sent, 0
    command = [sys.executable, "-m", "mdl", "fetch", name, "p1", "--to", str(folder / f"models-{name}")]
    null = subprocess.DEVNULL
    while True:
        process = subprocess.Popen(command, env=environ, stdin=null, stdout=null, stderr=subprocess.PIPE, text=True)
        try:
            seconds = draw.uniform(0.6, 1.2 * args.seconds / max(1, args.kills)) if kills < args.kills else 900
            _, errors = process.communicate(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    file = folder / f"models-{name}" / name / "p1" / _PATH
    if not file.is_file():
        file = file.parents[1] / "weights.bin"
    right = process.returncode == 0 and file.is_file() and bench.sha256_of(file) == expected(args.size)
    again = meter.sent - before - args.size
    bench.claim(f"{name}: the right bytes, exit code {process.returncode}", right)
    cheap = again <= max(1, kills) * _MOST_A_KILL
    bench.claim(f"{name}: {again / 1e6:.1f} MB were served again, at most 2.5 a kill", cheap)
    if not right:
        print(errors)
    return name, str(kills), "yes" if right else "NO", f"{1 + again / args.size:.3f}"


def fill(store: Seaweed, size: int) -> None:
    import boto3

    api: Any = boto3.client(
        "s3",
        endpoint_url=store.url,
        aws_access_key_id=store.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=store.environ["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    api.create_bucket(Bucket="training")
    data = pattern(_PATH, size)
    digest = hashlib.sha256(data).hexdigest()
    api.put_object(Bucket="training", Key=f"results/p1/{_PATH}", Body=data, Metadata={"sha256": digest})
    api.put_object(Bucket="training", Key="processes/p1.json", Body=b'{"status": "completed"}')


def train(endpoint: Endpoint, size: int) -> None:
    """Have the worker know the process, whose file it finds in the bucket."""
    import httpx

    wait_for_workers(endpoint)
    given = {"type": "train", "process_id": "p1", "files": {_PATH: size}}
    answer = httpx.post(
        f"{endpoint.base_url}/runsync", json={"input": given}, headers={"Authorization": f"Bearer {KEY}"}, timeout=120
    )
    assert answer.json()["status"] == "COMPLETED", answer.text


def expected(size: int) -> str:
    return hashlib.sha256(pattern(_PATH, size)).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
