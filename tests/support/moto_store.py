"""An S3-compatible store that starts in half a second: moto. It accepts every signature, so it shows nothing of
credentials and expiry; `support.seaweed` does. And boto3's client for both."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.processes import free_ports, serving_at

ANY_KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def s3_api(url: str, environ: Mapping[str, str] = ANY_KEYS) -> Any:
    """boto3's client of the store at ``url``, with the keys of these variables."""
    import boto3

    key, secret = environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]
    named = {"aws_access_key_id": key, "aws_secret_access_key": secret, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=url, **named)


@contextmanager
def moto_store() -> Iterator[str]:
    """The URL of a store without buckets."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    assert program is not None
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with serving_at(f"{url}/moto-api/", [program, "-H", "127.0.0.1", "-p", str(port)]):
        yield url
