"""Seeds: what each target is usually given, so that what is tried lies near it."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from support.zip_bytes import DEFLATED, UTF8, Member, Zip, extra, wide

from mdl.archive.tar import END, header, padding
from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_file import lock_text
from mdl.catalog.reader import parse_catalog
from mdl.hashing import Digest
from mdl.paths import RelPath

_SHA, _GIT, _COMMIT = "ab" * 32, "12" * 20, "c" * 40
_CATALOG = b"""schema = 1
# comment
[models."bert-fa"]
title = "BERT"
kind = "model"
license = "apache-2.0"
tags = ["persian", "nlp"]
source = "hf:org/repo"
include = ["config.json", "*.bin"]
exclude = ["x/*"]
revision = "main"
note = '''
many
lines'''
x-mine = {a = 1}

[models.two]
homepage = "https://h.example/"
gone = "it went"
see = ["bert-fa"]

[[models.three.files]]
id = "main"
path = "vae/ae.safetensors"
role = "weights"
url = "https://h.example/ae.safetensors"
mirrors = ["https://other.example/ae.safetensors"]
size = 335304388
sha256 = "%s"

[groups]
nightly = ["bert-fa", "three"]
""" % _SHA.encode()
_LOCK = f"""# Written by 'mdl lock'; edit the catalog instead.
version = 2

[[model]]
name = "bert-fa"
source = "hf:org/repo@{_COMMIT}"
left_out = [
  {{ path = "onnx/model.onnx", size = 7 }},
  {{ path = "pytorch_model.bin" }},
]
files = [
  {{ path = "config.json", size = 10, git-sha1 = "{_GIT}" }},
  {{ path = "model.bin", size = 1000, sha256 = "{_SHA}", source = "https://h.example/model.bin", \
mirrors = ["https://h.example/m.bin"], role = "other", tofu = true }},
  {{ path = "vocab.txt", size = 5, sha256 = "{_SHA}", bundled = true }},
]
entry = "0123456789abcdef"
"""


def _sealed(*facts: Any) -> bytes:
    return b"\n".join(b"=" + json.dumps(fact).encode() for fact in facts) + b"\n"


_HEADER = {
    "mdl-journal": 1,
    "url": "https://h/m.bin",
    "size": 1000,
    "digest": f"sha256:{_SHA}",
    "validator": None,
    "commit": None,
}
_RECEIPT = {
    "mdl-receipt": 1,
    "model": "m",
    "path": "a/b.bin",
    "stamp": [1000, 1_700_000_000_123_456_789, 42],
    "digest": f"sha256:{_SHA}",
    "verified": "sha256",
    "url": "https://h/m.bin",
    "validator": '"a"',
    "commit": _COMMIT,
    "suspect": False,
}
_TIME = "2026-01-01T00:00:00.000Z"
_JOB = {
    "mdl-job": 1,
    "id": "1122-aaaa",
    "command": "get",
    "models": ["bert-fa"],
    "owner": "0123456789ab-1-2",
    "host": "h",
    "again": {"words": ["get", "--", "bert-fa"], "folder": "/", "variables": {"MDL_HOME": "/m"}, "withheld": False},
    "started_at": _TIME,
    "log": "/x.log",
    "status": "running",
    "bytes_done": 1,
    "bytes_total": 2,
    "bytes_per_second": 1.5,
    "eta_seconds": None,
    "file": "bert-fa/m.bin",
    "finished_at": None,
    "exit_code": None,
    "error": {"code": "NET", "message": "m", "hint": None, "item": "i"},
}
_LISTING = {
    "mdl-listing": 1,
    "source": "hf:org/repo",
    "commit": _COMMIT,
    "files": [["config.json", 10, f"git-sha1:{_GIT}"], ["a/m.bin", 1000, f"sha256:{_SHA}"], ["x", 0, None]],
}
_TREE = [
    {"type": "file", "path": "config.json", "size": 10, "oid": _GIT},
    {"type": "directory", "path": "a", "size": 0, "oid": _GIT},
    {"type": "file", "path": "a/m.bin", "size": 9, "oid": _GIT, "lfs": {"oid": _SHA, "size": 9, "pointerSize": 130}},
]
_MANIFEST = {
    "schema": "mdl.manifest/1",
    "files": [{"path": "config.json", "size": 3, "sha256": _SHA}],
    "run": "tts",
    "checkpoint": "checkpoint-1500",
    "step": 1500,
    "layout": "hf",
    "inference_only": True,
    "changed": ["config.json"],
    "incomplete": [],
    "skipped": [{"path": ".env", "why": "a secret"}],
}
_HISTORY: dict[str, Any] = {
    "schema": "mdl.releases/1",
    "releases": ["step-1-0123456789ab", "model-0123456789ab"],
    "served": ["step-1-0123456789ab"],
    "withdrawn": ["model-0123456789ab"],
    "switches": [{"time": "t", "before": "", "after": "step-1-0123456789ab", "why": "release", "by": "u:1"}],
}


def _tensors(header: Any, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


_SETTINGS = b"""[defaults]
connections = 8
stall = "30s"
limit_rate = 20000000
[hooks]
on_complete = "true"
[stores]
also = ["/models"]
[remotes.gpu]
kind = "runpod"
endpoint = "abc123"
[remotes.store]
kind = "bucket"
url = "s3://training/prefix"
[hosts."civitai.com"]
token_env = "CIVITAI_TOKEN"
send = "query:token"
"""
_REPOSITORIES = [
    {"id": "org/model", "downloads": 5, "likes": 1, "gated": "auto", "private": False, "tags": ["license:mit"]}
    | {"lastModified": "2026-01-01T00:00:00.000Z", "usedStorage": 1000},
    {"id": "other"},
]
_MARKER = {
    "schema": "mdl.mirror-complete/1",
    "name": "m",
    "version": "0123456789abcdef",
    "files": [{"path": "a/b.bin", "size": 5, "sha256": _SHA}],
    "source": "hf:org/m",
    "commit": _COMMIT,
}
_UPLOADS = b"""<?xml version="1.0"?><ListMultipartUploadsResult xmlns="urn:x"><IsTruncated>true</IsTruncated>
<NextKeyMarker>k</NextKeyMarker><Upload><Key>k/1</Key><UploadId>u</UploadId></Upload></ListMultipartUploadsResult>"""
_PARTS = b"""<ListPartsResult><Part><PartNumber>1</PartNumber><Size>5</Size><ETag>e</ETag>
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Part></ListPartsResult>"""
_NODE = {
    "schema": "mdl.get/1",
    "ok": True,
    "exit_code": 0,
    "error": None,
    "seconds": 1.5,
    "bytes_fetched": 5,
    "models": [{"name": "m", "status": "present", "files": [{"path": "a", "size": 5, "action": "fetched"}]}],
}
_EVENTS: list[dict[str, object]] = [
    {"event": "planned", "time": _TIME, "files": 2, "bytes_total": 9, "bytes_to_fetch": 9, "models": [["m", 2]]},
    {"event": "started", "time": _TIME, "model": "m", "file": "a", "index": 1, "total": 5, "host": "h"},
    {"event": "progress", "time": _TIME, "bytes_done": 1, "bytes_total": 10, "bytes_per_second": 5.0, "files": []},
    {"event": "retrying", "time": _TIME, "model": "m", "file": "a", "why": "no route", "attempt": 1, "delay": 1.5},
    {"event": "ended", "time": _TIME, "status": "finished"},
]
_LOG = b"\n".join(b"=" + json.dumps(event).encode() for event in _EVENTS) + b"\nsaid by a hook\n"
_OLLAMA = "application/vnd.ollama.image.model"


_PLAIN, _PACKED = Member(name=b"config.json", data=b"{}\n"), Member(name=b"a/m.bin", data=b"ab" * 99, method=DEFLATED)
_BESIDE = Member(name="é.txt".encode(), flags=UTF8, extra=extra(0x5455, b"\1" + bytes(4)), descriptor={})
_WIDE = Member(name=b"w", extra=wide(10, 10), local={"packed": 2**32 - 1, "size": 2**32 - 1})

_BUNDLED = b'schema = 1\n[models.a]\n[[models.a.files]]\npath = "x"\nurl = "https://h.example/x"\n'


def _bundle(path: str = "x") -> bytes:
    """A bundle of one small file."""
    [model] = parse_catalog(_BUNDLED.decode(), Path("catalog.toml")).models.values()
    digest = Digest("sha256", hashlib.sha256(b"12345").hexdigest())
    file = LockedFile(RelPath.parse(path), "https://h.example/x", 5, digest)
    lock = lock_text(Lock({"a": LockedModel("a", entry_of(model), (file,))})).encode()
    texts = {"README.txt": b"read me", "catalog.toml": _BUNDLED, "mdl.lock": lock, f"models/a/{path}": b"12345"}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in texts.items()]
    texts["SHA256SUMS"] = "".join(lines).encode()
    pieces = (header(f"mdl-bundle/{name}", len(data)) + data + padding(len(data)) for name, data in texts.items())
    return b"".join(pieces) + END


SEEDS: dict[str, list[bytes]] = {
    "bundle": [_bundle(), _bundle("long/" * 30 + "مدل")],
    "catalog": [_CATALOG, b'schema = 1\n[models.a]\nsource = ["hf:a/b@main/x", "https://h.example/y?z=1"]\n'],
    "lock": [_LOCK.encode(), b"version = 2\n"],
    "journal": [
        _sealed(_HEADER, [0, 400], {"origin": "https://h:443", "validator": '"a"'}, [600, 1000], [300, 700]),
        _sealed(_HEADER | {"size": None, "digest": None, "validator": '"x"'}, [0, 5]),
    ],
    "receipt": [
        _sealed(_RECEIPT, ["01" * 32, "02" * 32]),
        _sealed(_RECEIPT | {"hub": ["org/repo", "model", _COMMIT, "a/b.bin", "main"]}, []),
    ],
    "job": [
        b"=" + json.dumps(_JOB | {"mdl-job": 2}).encode() + b'\n={"status": "done", "exit_code": 0, "error": null}\n',
    ],
    "listing": [_sealed(_LISTING)],
    "tree": [json.dumps(_TREE).encode()],
    "relpath": [b"unet/model.safetensors\nunet/MODEL.safetensors\n..", "مدل/é.bin\nCON\na/../b\n~x".encode()],
    "redaction": [
        b"s3cr3t+value/with=signs\nthe server said {} and https://u:{}@h/?x={}",
        b"hf_abcdefghijklmnop\nx {} https://h/{}/a?b",
    ],
    "safetensors": [
        _tensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}}, bytes(8)),
        _tensors({}),
    ],
    "zip_directory": [
        Zip(members=(_PLAIN, _PACKED)).build(),
        Zip(members=(_PLAIN, _BESIDE, _WIDE), comment=b"c").build(),
        Zip(members=(_PLAIN, Member(name=b"d/", data=b"")), end64={}, locator={}).build(),
        Zip().build(),
    ],
    "manifest": [json.dumps(_MANIFEST).encode()],
    "answer": [
        json.dumps(one).encode()
        for one in (
            {"type": "file_data", "filename": "a.bin", "data": "AAAA", "size": 3, "content_type": "image/png"},
            {"download_items": [{"filename": "a", "url": "https://h/results/job/lora/a?sig=1", "size": 1}] * 2},
            {"status": "COMPLETED", "output": {"type": "redirect", "url": "https://h/a", "filename": "../a"}},
            ["https://h/a.bin", {"lora": {"url": "/download/job"}}],
            {"/api/training/{id}/download/model": {"get": {}}, "/jobs": {"get": {}}},
            {"id": "x", "status": "failed", "error": json.dumps({"error_message": "e"}), "created_at": 1.5e12},
        )
    ],
    "history": [json.dumps(_HISTORY).encode()],
    "settings": [_SETTINGS],
    "base": [
        _sealed({"mdl-base": 1, "text": "schema = 1\n", "validator": {"If-None-Match": "x"}, "at": 1.5, "asked": 2.5})
    ],
    "search": [json.dumps(_REPOSITORIES).encode()],
    "marker": [json.dumps(_MARKER).encode()],
    "bucket_list": [_UPLOADS, _PARTS, _UPLOADS.decode().encode("utf-16")],
    "node": [b"0\n" + json.dumps(one).encode() for one in (_NODE, _NODE | {"exit_code": 6, "error": _JOB["error"]})],
    "job_log": [_LOG],
    "gauges": [
        b"# TYPE mdl_prefetch_last_success_timestamp_seconds gauge\nmdl_prefetch_last_success_timestamp_seconds 1.7e9\n"
    ],
    "lease": [json.dumps({"process": "0123456789ab-1-2-3", "host": "h", "pid": 12, "since": "12:00:00"}).encode()],
    "ollama": [json.dumps({"layers": [{"mediaType": _OLLAMA, "digest": f"sha256:{_SHA}", "size": 1}]}).encode()],
    "training_run": [
        b'{"global_step": 1500, "best_global_step": 1000, "loss": NaN, "log_history": [], "best_metric": 1e999}',
        json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}, "metadata": {"total_size": 5}}).encode(),
        _tensors({"__metadata__": {"ss_steps": "1500", "training_info": '{"step": 5}'}}),
    ],
    "expiry": [b"Expires=1700000000\nse=2026-01-01T00:00:00Z&sig=x\nX-Amz-Date=20260101T000000Z&X-Amz-Expires=3600"],
    "numbers": [b'{"size": 12, "loss": NaN, "long": 1000000000000000019884624838656, "list": [1.5, -1]}', b"[0, 1e3]"],
    "content_range": [
        b'206 100 199 1000\ncontent-range: bytes 100-199/1000\ncontent-length: 100\netag: "a"\nbegun: "a"',
        b"200 100 199 1000\ncontent-length: 1000\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\ndate: Fri, 02 Jan 2026",
        b"416 5 9 10\ncontent-range: bytes */10",
        b"206 0 9 x\ncontent-range: bytes 0-9/*\ncontent-encoding: gzip\ncontent-type: multipart/byteranges",
    ],
    "wait": [
        b"retry-after: 120",
        b"retry-after: Fri, 31 Dec 2027 23:59:59 GMT",
        b'ratelimit: "api";r=0;t=5, "x";r=1;t=100',
        b"retry-after: Fri, 31 Dec 9999 23:59:59 -2359",
    ],
    "link": [
        b'<https://huggingface.co/api/models/org/repo/tree/main?cursor=abc>; rel="next"',
        b"</api/x?cursor=1>; rel=next, <https://h.example/>; rel=prev",
        b'<//other.example/>; rel="next"',
    ],
    "etag": [
        f'etag: "{_SHA}"'.encode(),
        f'etag: W/"{_GIT}"'.encode(),
        b"last-modified: Thu, 01 Jan 2026 00:00:00 GMT\ndate: Fri, 02 Jan 2026 00:00:00 GMT",
    ],
    "redirects": [
        b"/a?b#c\nhttps://cdn.example/x?Signature=1\nhttps://huggingface.co/y",
        b"https://x.wide.example:443/\nhttp://127.0.0.1:8080/\n//cdn.example/",
        b"https://user@cdn.example/\nhttps://cdn.example\\@evil.example/\nhttps://evil.example",
        b"https://huggingface.co:443/\nhttps://HUGGINGFACE.co./x\n../../y",
    ],
    "hosts": [
        b"h.example\n*.wide.example:8443\n[::1]:80\nhttps://a.wide.example:8443/x",
        b"127.0.0.1\nhttp://127.0.0.1/x",
        b"h.example\nhttps://h.example\\@other.example/",
        b"https://cdn-lfs.hf.co/x?y#z",
    ],
    "references": [
        b"hf:datasets/org/repo@refs/pr/1/data/x.csv",
        b"https://huggingface.co/org/repo/resolve/main/a%20b.bin?download=true",
        b"https://user:word@h.example:8443/x?sig=1",
        b"http://[::1]:80/a/b.gguf",
    ],
    "refused": [
        b'429\nretry-after: 5\ncontent-type: application/json\nx-request-id: r\n\n{"error": {"message": "slow down"}}',
        b"403\nx-error-code: GatedRepo\nx-error-message: no\n\n",
        b"503\ncontent-type: text/html\n\n<html><title>Away</title><h1>x</h1>",
    ],
}
