"""A training server of the usual shape, as a FastAPI application: jobs, checkpoints, and zips that it builds in memory.

It has the faults that such servers have in the wild: no length, no ranges, a long time before the first byte, a
connection that drops, and a stream that ends well with half a zip. Each run is a folder ``ID`` with ``job.json`` beside
the files of its model.

``job.json`` may have ``"faults"``: ``drop_at`` and ``short_at`` (bytes), ``times`` (how many answers have the fault),
``then_status`` (what the job's status is after the first zip), ``detail`` and ``status_code`` (an error for the zip).
Zips have the ``compresslevel`` of ``job.json``, or 0, which costs no time. With ``"format": "tar"`` or ``"tar.gz"`` the
model comes as such an archive, under the same name, as a server that was changed and not looked through sends it.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

_CHUNK = 64 * 1024
_OWN = {"job.json"}
_LOGS = ("training.log", "progress.json", "trainer_state.json")


class Faults:
    """How often each job's zip was asked, and what is to go wrong with it."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def of(self, job: dict[str, Any]) -> dict[str, Any]:
        faults: dict[str, Any] = job.get("faults", {})
        count = self.asked[job["job_id"]] = self.asked.get(job["job_id"], 0) + 1
        return faults if count <= faults.get("times", 10**9) else {}


def application(runs: Path) -> FastAPI:
    """The server of the runs below ``runs``."""
    app, faults = FastAPI(), Faults()

    def job_of(job_id: str) -> dict[str, Any]:
        place = runs / job_id / "job.json"
        if "/" in job_id or not place.is_file():
            raise HTTPException(404, f"Job {job_id} not found")
        job: dict[str, Any] = {"job_id": job_id, "status": "completed", **json.loads(place.read_bytes())}
        if faults.asked.get(job_id) and "then_status" in job.get("faults", {}):
            job["status"] = job["faults"]["then_status"]
        return job

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/api/training/jobs")
    def list_jobs() -> dict[str, Any]:
        return {"jobs": [told(job_of(run.name)) for run in sorted(runs.iterdir()) if (run / "job.json").is_file()]}

    @app.get("/api/training/status/{job_id}")
    def status(job_id: str) -> dict[str, Any]:
        return told(job_of(job_id))

    @app.get("/api/training/checkpoints/{job_id}")
    def checkpoints(job_id: str) -> dict[str, Any]:
        job_of(job_id)
        found = [
            one for one in sorted((runs / job_id).iterdir()) if one.is_dir() and one.name.startswith("checkpoint-")
        ]
        rows = [
            {
                "path": one.name,
                "step": int(one.name.rpartition("-")[2]),
                "size_bytes": sum(file.stat().st_size for file in one.rglob("*") if file.is_file()),
                "is_best": False,
                "is_latest": one == found[-1],
            }
            for one in found
        ]
        return {"job_id": job_id, "checkpoints": rows, "best_checkpoint": None}

    @app.get("/api/training/{job_id}/download/model")
    def model(job_id: str, request: Request, checkpoint: str | None = None) -> StreamingResponse:
        job, folder, name = job_of(job_id), runs / job_id, f"model_{job_id}.zip"
        if checkpoint is not None:
            if ".." in checkpoint or "/" in checkpoint or "\\" in checkpoint:
                raise HTTPException(400, "Invalid checkpoint name")
            folder, name = folder / checkpoint, f"model_{job_id}_{checkpoint}.zip"
            if not folder.is_dir():
                raise HTTPException(404, f"Checkpoint '{checkpoint}' not found")
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in _OWN]
        return answer(job, name, [(str(file.relative_to(folder)), file) for file in files])

    @app.get("/api/training/{job_id}/download/logs")
    def logs(job_id: str) -> StreamingResponse:
        job = job_of(job_id)
        files = [(name, runs / job_id / name) for name in _LOGS if (runs / job_id / name).is_file()]
        if not files:
            raise HTTPException(404, f"Training log not found for job {job_id}")
        return answer(job, f"logs_{job_id}.zip", files)

    @app.post("/api/training/cancel/{job_id}")
    def cancel(job_id: str) -> dict[str, Any]:
        job = job_of(job_id)
        if job["status"] not in ("queued", "pending", "running", "paused"):
            raise HTTPException(400, f"Job is already {job['status']}")
        kept = {key: value for key, value in job.items() if key != "job_id"} | {"status": "cancelled"}
        (runs / job_id / "job.json").write_text(json.dumps(kept))
        return {"success": True, "job_id": job_id, "message": "Job cancelled"}

    def answer(job: dict[str, Any], name: str, files: list[tuple[str, Path]]) -> StreamingResponse:
        wrong = faults.of(job)
        if "detail" in wrong:
            raise HTTPException(wrong.get("status_code", 500), wrong["detail"])
        headers = {"Content-Disposition": f"attachment; filename={name}"}
        return StreamingResponse(pieces(archive_of(job, files), wrong), media_type="application/zip", headers=headers)

    return app


def archive_of(job: dict[str, Any], files: list[tuple[str, Path]]) -> bytes:
    """These files in the format of the job."""
    buffer = io.BytesIO()
    if job.get("format", "zip") == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=job.get("compresslevel", 0)) as archive:
            for inner, file in files:
                archive.write(file, inner)
    else:
        packing = "w:gz" if job["format"] == "tar.gz" else "w"
        with tarfile.open(fileobj=buffer, mode=packing) as packed:
            for inner, file in files:
                packed.add(file, inner)
    return buffer.getvalue()


def told(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if key != "faults"}


def pieces(data: bytes, wrong: dict[str, Any]) -> Iterator[bytes]:
    """The zip without its length; cut short, or with a connection that dies, if that is wished."""
    end = min(len(data), wrong.get("short_at", len(data)), wrong.get("drop_at", len(data)))
    for start in range(0, end, _CHUNK):
        yield data[start : min(start + _CHUNK, end)]
    if "drop_at" in wrong:
        raise ConnectionResetError("this server dies")
