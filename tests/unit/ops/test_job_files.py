"""Which files of a job are meant, where its remote does not answer well."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.networks import network_of
from support.remotes import world

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.context import Context
from mdl.downloader.store import Store
from mdl.errors import AuthError
from mdl.ops.job_files import files_of_job
from mdl.results.base import JobOrigin

pytest.importorskip("boto3")
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret"}
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
SHARDED = {
    f"results/j1/checkpoint-{step}/{name}": data
    for step in (500, 1000)
    for name, data in (
        ("model-00001-of-00001.safetensors", b"x"),
        ("model.safetensors.index.json", INDEX),
        ("trainer_state.json", b"{}"),
    )
}
RECORD = "/checkpoint-1000/model.safetensors.index.json"


class Objects:
    """The bucket ``training`` with these objects; the answer to the next requests for a path that ends so is in
    ``failures``."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects
        self.failures: dict[str, list[Answer]] = {}

    def __call__(self, request: Request, number: int) -> Answer:
        key = unquote(request.path).removeprefix("/training").lstrip("/")
        for ending, answers in self.failures.items():
            if key.endswith(ending) and answers:
                return answers.pop(0)
        if key in self.objects:
            return reply(200, self.objects[key])
        if "list-type" not in request.query:
            return reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        rows = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
            f"<Size>{len(data)}</Size></Contents>"
            for name, data in self.objects.items()
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        return reply(200, body.encode())


@contextmanager
def latest_of(objects: Objects, folder: Path) -> Iterator[tuple[Model, Context]]:
    """The latest checkpoint of the job ``j1`` of a bucket, and what a run works with."""
    with FaultyServer(objects) as server:
        tables = {"store": {"kind": "bucket", "url": "s3://training", "endpoint_url": server.url}}
        with world(tables, KEYS) as made:
            resolver = Resolver(made.context)
            made.http.follower.locate = resolver.locate
            context = Context(resolver, Store(folder), network_of(made.http), lock_wait=0.0)
            yield Model("m", sources=(JobOrigin("store", "j1", "latest"),)), context


def test_a_record_that_is_not_answered_at_once(tmp_path: Path) -> None:
    """A record is asked for again, as a file is: without it an older checkpoint would be the latest."""
    objects = Objects(SHARDED)
    objects.failures[RECORD] = [reply(503, b"busy")]
    with latest_of(objects, tmp_path) as (model, context):
        files = files_of_job(model, context)
    assert {file.path.text for file in (*files.others, *files.archives)} == {
        name.removeprefix("results/j1/") for name in SHARDED if "checkpoint-1000" in name
    }
    assert objects.failures[RECORD] == []


def test_a_record_that_may_not_be_read(tmp_path: Path) -> None:
    """It says nothing of its checkpoint, and the error is the job's."""
    objects = Objects(SHARDED)
    objects.failures[RECORD] = [reply(403, b"<Error><Code>AccessDenied</Code></Error>")] * 9
    with latest_of(objects, tmp_path) as (model, context), pytest.raises(AuthError):
        files_of_job(model, context)
