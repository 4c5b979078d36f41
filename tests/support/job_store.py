"""A bucket of training jobs as workers leave it: ``PREFIX/processes/ID.json`` and ``PREFIX/results/ID/…``."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from support.moto_store import s3_api

PREFIX = "prefix"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class JobStore:
    """A new bucket of the store at ``url``."""

    url: str
    bucket: str

    @classmethod
    def at(cls, url: str) -> JobStore:
        store = cls(url, f"training-{next(_numbers)}")
        store.api.create_bucket(Bucket=store.bucket)
        return store

    @cached_property
    def api(self) -> Any:
        return s3_api(self.url)

    @property
    def table(self) -> str:
        """It as a remote called ``store``."""
        return f'[remotes.store]\nkind = "bucket"\nurl = "s3://{self.bucket}/{PREFIX}"\nendpoint_url = "{self.url}"\n'

    def put(self, key: str, data: bytes) -> None:
        self.api.put_object(Bucket=self.bucket, Key=f"{PREFIX}/{key}", Body=data)

    def job(self, name: str, status: str = "completed", days: float | None = 90, **more: Any) -> None:
        """A job whose record was made so many ``days`` ago, with a LoRA of 1000 bytes and a picture of 10."""
        record: dict[str, Any] = {"id": name, "status": status, **more}
        if days is not None:
            record["created_at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        self.put(f"processes/{name}.json", json.dumps(record).encode())
        self.put(f"results/{name}/lora/{name}.safetensors", b"w" * 1000)
        self.put(f"results/{name}/samples/1.png", b"p" * 10)

    def objects(self) -> set[str]:
        """What is in it, below the prefix."""
        found = self.api.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {one["Key"].removeprefix(f"{PREFIX}/") for one in found}

    def jobs(self) -> set[str]:
        """The jobs that have a record."""
        return {key.removeprefix("processes/")[:-5] for key in self.objects() if key.startswith("processes/")}
