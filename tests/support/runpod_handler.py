"""A serverless worker's handler of the usual shape, run by the real runpod SDK: trains, tells, and hands over results.

What it knows of processes is in its own memory, so another worker answers "Process not found". With ``BUCKET_FOLDER``
set, files lie there, as in a bucket that is mounted; with ``S3_…`` set they are in a bucket, and ``download`` answers
with a presigned URL.
"""

from __future__ import annotations

import base64
import os
import time
from typing import Any

PROCESSES: dict[str, dict[str, Any]] = {}


def store() -> Any:
    """boto3's client for the bucket of this worker; None if it has none."""
    if "S3_BUCKET" not in os.environ:
        return None
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT"],
        aws_access_key_id=os.environ["S3_KEY"],
        aws_secret_access_key=os.environ["S3_SECRET"],
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def place_of(key: str) -> dict[str, str]:
    """Where an object of this worker is."""
    prefix = os.environ.get("S3_PREFIX", "").strip("/")
    return {"Bucket": os.environ["S3_BUCKET"], "Key": f"{prefix}/{key}".lstrip("/")}


def handler(job: dict[str, Any]) -> Any:
    given = job["input"]
    kind = given.get("type")
    try:
        return HANDLERS[kind](given)
    except KeyError as error:
        return {"error": f"unknown type or field: {error}"}


def train(given: dict[str, Any]) -> Any:
    """``files`` maps a name below the results to its size in bytes; the bytes are a pattern of the name."""
    name = given["process_id"]
    files = {path: pattern(path, size) for path, size in given["files"].items()}
    PROCESSES[name] = {
        "id": name,
        "status": given.get("status", "completed"),
        "files": files,
        "created_at": time.time(),
    }
    if (bucket := store()) is not None:
        import json

        for path, data in files.items():
            bucket.put_object(**place_of(f"results/{name}/{path}"), Body=data)
        record = {"id": name, "status": PROCESSES[name]["status"], "created_at": PROCESSES[name]["created_at"]}
        bucket.put_object(**place_of(f"processes/{name}.json"), Body=json.dumps(record).encode())
    return {"process_id": name, "status": PROCESSES[name]["status"], "worker": os.environ["RUNPOD_POD_ID"]}


def pattern(path: str, size: int) -> bytes:
    seed = path.encode() + b"\0"  # no text: that would be a message in the place of a model
    return (seed * (size // len(seed) + 1))[:size]


def process_of(given: dict[str, Any]) -> dict[str, Any] | None:
    return PROCESSES.get(given["process_id"])


def process_status(given: dict[str, Any]) -> Any:
    found = process_of(given)
    if found is None:
        return {"error": "Process not found"}
    return {key: found[key] for key in ("id", "status", "created_at")}


def processes(given: dict[str, Any]) -> Any:
    return {"processes": [process_status({"process_id": name}) for name in PROCESSES]}


def cancel(given: dict[str, Any]) -> Any:
    found = process_of(given)
    if found is None:
        return {"error": "Process not found"}
    if found["status"] != "running":
        return {"success": False, "message": f"Process is {found['status']}"}
    found["status"] = "cancelled"
    return {"success": True, "process_id": found["id"]}


def download(given: dict[str, Any]) -> Any:
    """The first file by name, or the one of ``s3_key``: inline, or as a URL if there is a bucket."""
    found = process_of(given)
    if found is None:
        return {"error": "Process not found"}
    if found["status"] != "completed":
        return {"error": "Process not completed"}
    path = given.get("s3_key", "").rpartition(f"results/{found['id']}/")[2] or min(found["files"])
    data = found["files"][path]
    name = path.rpartition("/")[2]
    if (bucket := store()) is not None:
        return {"type": "redirect", "url": signed(bucket, found["id"], path), "filename": name, "size": len(data)}
    return {
        "type": "file_data",
        "filename": name,
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "content_type": "application/octet-stream",
    }


def bulk_download(given: dict[str, Any]) -> Any:
    """Every file of the processes that this worker knows; those that it does not know are left out in silence."""
    bucket, items = store(), []
    for name in given["process_ids"]:
        for path, data in PROCESSES.get(name, {}).get("files", {}).items():
            kind = {"lora": "lora", "samples": "image"}.get(path.partition("/")[0], "other")
            row = {"filename": path.rpartition("/")[2], "size": len(data), "type": kind}
            row["url"] = signed(bucket, name, path) if bucket is not None else f"/download/{name}"
            items.append(row)
    total = sum(row["size"] for row in items)
    return {"download_items": items, "zip_url": None, "total_files": len(items), "total_size": total}


def list_files(given: dict[str, Any]) -> Any:
    found = process_of(given)
    if found is None:
        return {"error": "Process not found"}
    rows = [{"key": f"results/{found['id']}/{path}", "size": len(data)} for path, data in found["files"].items()]
    return {"files": rows}


def signed(bucket: Any, name: str, path: str) -> str:
    seconds = int(float(os.environ.get("S3_LINK_SECONDS", "3600")))
    url: str = bucket.generate_presigned_url("get_object", place_of(f"results/{name}/{path}"), seconds)
    return url


def health(_: dict[str, Any]) -> Any:
    return {"status": "healthy", "worker": os.environ["RUNPOD_POD_ID"]}


HANDLERS = {
    "train": train,
    "process_status": process_status,
    "processes": processes,
    "cancel": cancel,
    "download": download,
    "download_by_key": download,
    "bulk_download": bulk_download,
    "list_files": list_files,
    "health": health,
}

if __name__ == "__main__":
    import runpod

    runpod.serverless.start({"handler": handler})
