"""Mirrors as their users have them: a machine with locked models on its disk, and a bucket."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from mdl.catalog.lock_file import parse_lock
from support.data import sha256, write_files
from support.faults.wire import Answer, Handler, Request, reply
from support.moto_store import s3_api
from support.shell import Shell, machine

_numbers = itertools.count(1)
ABSENT = "http://127.0.0.1:7"
"""Nobody serves files there."""


@dataclass(frozen=True)
class MirrorStore:
    """A new bucket of the store that these variables of a user name; the mirror is below ``m/`` in it."""

    environ: Mapping[str, str]
    bucket: str

    @classmethod
    def at(cls, environ: Mapping[str, str]) -> MirrorStore:
        store = cls(environ, f"mirrors-{next(_numbers)}")
        store.api.create_bucket(Bucket=store.bucket)
        return store

    @cached_property
    def api(self) -> Any:
        return s3_api(self.environ["AWS_ENDPOINT_URL_S3"], self.environ)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/m"

    def put(self, key: str, data: bytes, **metadata: str) -> None:
        self.api.put_object(Bucket=self.bucket, Key=f"m/{key}", Body=data, Metadata=metadata)

    def read(self, key: str) -> bytes:
        data: bytes = self.api.get_object(Bucket=self.bucket, Key=f"m/{key}")["Body"].read()
        return data

    def objects(self) -> set[str]:
        """The keys below ``m/``."""
        found = self.api.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {one["Key"].removeprefix("m/") for one in found}

    def uploads(self) -> list[str]:
        """The keys of the uploads that were begun and not ended."""
        found = self.api.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [one["Key"].removeprefix("m/") for one in found]

    def begin(self, key: str, *parts: bytes, metadata: Mapping[str, str] | None = None, **more: str) -> dict[str, Any]:
        """Begin an upload that has these parts: what names it."""
        upload = {"Bucket": self.bucket, "Key": f"m/{key}"}
        upload["UploadId"] = self.api.create_multipart_upload(**upload, Metadata=metadata or {}, **more)["UploadId"]
        for number, body in enumerate(parts, 1):
            self.api.upload_part(**upload, PartNumber=number, Body=body, **more)
        return upload

    def tamper(self, key: str) -> None:
        """Other bytes of the same length under the same metadata, as a bad disk or hand leaves them."""
        data = self.read(key)
        metadata = self.api.head_object(Bucket=self.bucket, Key=f"m/{key}")["Metadata"]
        self.put(key, bytes([data[0] ^ 1]) + data[1:], **metadata)


def tapped(target: str, tap: Callable[[Request], Answer | None]) -> Handler:
    """Pass every request on to the store at ``target``, but those that ``tap`` answers itself. A tap may also do
    something at the right moment, and answer nothing."""

    def handle(request: Request, number: int) -> Answer:
        if answer := tap(request):
            return answer
        headers = [(name, value) for name, value in request.headers if name.lower() not in ("host", "content-length")]
        with httpx.stream(
            request.method, target + request.target, headers=headers, content=request.body, timeout=60
        ) as told:
            data = b"".join(told.iter_raw())
            kept = [one for one in told.headers.items() if one[0] not in ("connection", "transfer-encoding")]
        if "content-length" not in told.headers:
            kept.append(("content-length", str(len(data))))
        return Answer(told.status_code, kept, data)

    return handle


def refused(status: int, code: str, *headers: tuple[str, str]) -> Answer:
    """How a store refuses."""
    return reply(status, f"<Error><Code>{code}</Code><Message>In its words.</Message></Error>".encode(), *headers)


def catalog_text(models: Mapping[str, Mapping[str, bytes]], url: str = ABSENT, more: str = "") -> str:
    """A catalog of these models, whose files are served at ``url``; ``more`` stands in each entry."""
    text = "schema = 1\n"
    for name, files in models.items():
        text += f'[models.{name}]\nlicense = "mit"\n{more}'
        for path, data in files.items():
            facts = f'size = {len(data)}\nsha256 = "{sha256(data)}"\n'
            text += f'[[models.{name}.files]]\npath = "{path}"\nurl = "{url}/{quote(path)}"\n{facts}'
    return text


def mirror_machine(home: Path, store: MirrorStore, models: Mapping[str, Mapping[str, bytes]], **extra: str) -> Shell:
    """A machine that has these models on its disk, and no lock yet; nobody but the bucket answers it."""
    shell = machine(home, catalog_text(models), **{**store.environ, "MDL_RETRIES": "2", **extra})
    for name, files in models.items():
        write_files(shell.models / name, files)
    return shell


def version_of(shell: Shell, name: str = "one") -> str:
    """The lock digest of a model."""
    return parse_lock((shell.home / "mdl.lock").read_text()).models[name].version


def marker_of(store: MirrorStore, name: str, version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.read(f"{name}/{version}/complete.json"))
    return found
