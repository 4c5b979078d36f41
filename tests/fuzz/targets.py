"""Targets: what others write and mdl reads. Each is a function of any bytes that asserts what must hold.

A line that begins with ``=`` gets a checksum (`mdl.crc_json`) before it is read: damage with a right checksum is tried
too. A target that needs several texts takes them line by line, header fields as ``name: value``.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from support.networks import network_of

from fuzz.net import TARGETS as NET
from fuzz.net import lines_of, text_of
from mdl import crc_json
from mdl.archive.base import ArchiveLimits
from mdl.archive.manifest import Manifest
from mdl.archive.releases import from_json, to_json
from mdl.archive.unpack import open_archive
from mdl.archive.zip_read import read_directory
from mdl.bounds import brief, parse_json, whole_number
from mdl.cancel import CancelToken
from mdl.catalog.extends import WebBases
from mdl.catalog.lock import entry_of, words_of_changes
from mdl.catalog.lock_file import lock_text, parse_lock, read_lock
from mdl.catalog.reader import read_catalog, read_text
from mdl.config.settings import check_config
from mdl.config.settings import read_text as read_settings
from mdl.describe import describe
from mdl.disk.mutex import holder_of
from mdl.downloader import journal as journals
from mdl.downloader.layouts import HubCache
from mdl.downloader.receipts import RECORD, Receipts, file_key
from mdl.downloader.store import Store
from mdl.errors import CatalogError, LockError, MdlError, UsageError
from mdl.formatting import human_bytes, human_duration
from mdl.jobs.job import event_in, facts_in, line_of, shown_facts
from mdl.jobs.log import raw_lines, readable
from mdl.jobs.prefetch import last_success
from mdl.jobs.records import Records
from mdl.local.formats import Folder, of_ollama
from mdl.net.client import HttpClient
from mdl.ops.edit_catalog import without_model
from mdl.paths import RelPath, is_harmful_in_prose, refuse_twin_folders, refuse_twins, shown
from mdl.redact import Secrets, redact
from mdl.results.answers import judge
from mdl.results.base import job_of
from mdl.results.job_server import routes_in
from mdl.results.outputs import error_in
from mdl.runs import find_run
from mdl.sources import SourceContext
from mdl.sources.answer_cache import kept_path
from mdl.sources.hub_api import _parse_item, parse_found_repo
from mdl.sources.hub_endpoint import Endpoint
from mdl.sources.hub_listing import FileList, Listing, Listings
from mdl.sources.hub_origin import HubOrigin
from mdl.sources.object_store import Bucket, PartedUpload
from mdl.sources.s3_client import Access
from mdl.urls import expires_at
from mdl.weights.safetensors import read_header, why_not_exact

_MEMORY = Path("/dev/shm")
_FOLDER = Path(tempfile.mkdtemp(prefix="mdl-fuzz-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def placed(name: str, data: bytes) -> Path:
    """``data`` in a file of that name, the same one every time."""
    path = _FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def sealed(data: bytes) -> bytes:
    """Every line that begins with ``=`` with its checksum."""
    lines = data.split(b"\n")
    return b"\n".join(_seal(line[1:]) if line.startswith(b"=") else line for line in lines)


def _seal(body: bytes) -> bytes:
    check = crc_json.dumps(0)[:9]
    try:
        return crc_json.dumps(json.loads(body)).rstrip(b"\n")
    except (ValueError, RecursionError):
        return check + body


def check_safe(path: RelPath) -> None:
    """A parsed path stays below the folder that it is joined to, and can be written."""
    base = "/somewhere/models"
    joined = os.path.normpath(path.under(Path(base)))
    assert joined == f"{base}/{path.text}", joined
    assert "\0" not in joined
    assert all(0 < len(os.fsencode(segment)) <= 255 for segment in path.text.split("/"))
    assert RelPath.parse(path.text) == path
    assert path.folded == RelPath(path.folded).folded


def catalog(data: bytes) -> None:
    """A catalog that is read has safe paths, and each of its models can be removed, or an error says why not."""
    path = placed("catalog.toml", data)
    found = read_catalog([path])
    for model in found.models.values():
        check_safe(RelPath.parse(model.name))
        for file in model.files:
            check_safe(file.path)
        assert len(entry_of(model)) == 16
    for name in list(found.models)[:2]:
        try:
            without_model(read_text(path), path, name)
        except (CatalogError, UsageError):
            continue


def lock(data: bytes) -> None:
    """A lock stays the same if it is written and read again."""
    path = placed("mdl.lock", data)
    found = read_lock(path, path)
    assert found is not None
    for model in found.models.values():
        for file in model.files:
            check_safe(file.path)
    assert parse_lock(lock_text(found)) == found
    assert words_of_changes(found, found) == []


def journal(data: bytes) -> None:
    """A journal never claims what lies outside the file, nor the same byte twice."""
    record = journals.load(placed("journal", sealed(data)))
    if record is None:
        return
    ranges = list(record.have)
    assert all(one.stop < other.start for one, other in pairwise(ranges))
    assert record.identity.size is None or not ranges or ranges[-1].stop <= record.identity.size
    record.identity.resumable_as(record.identity)
    journals.parse(journals.header(record.identity), "")


def receipt(data: bytes) -> None:
    """A receipt is valid or ignored, and never names a file outside the models folder."""
    path = RelPath.parse("a/b.bin")
    for name in (RECORD, f"{file_key('m', path)}.receipt"):
        placed(f"root/.mdl/receipts/m/{name}", sealed(data))
    store = Store(_FOLDER / "root")
    for found in (store.receipts.get("m", path), *store.receipts.all()):
        if found:
            check_safe(found.path)
            texts = (found.model, found.verified, found.url, found.validator or "", found.commit or "", *found.prefixes)
            assert all(isinstance(one, str) for one in texts)
            for layout in (None, HubCache):
                store = Store(_FOLDER / "root", layout=layout)
                stands = store.path_of(found)
                assert stands is None or stands.is_relative_to(store.root)
                store.is_gone(found)
            Receipts(_FOLDER / "again").put(found)


def checked(data: bytes) -> bytes:
    """Every line that begins with ``=`` as a line of a job's file, with its checksum."""
    lines = []
    for line in data.split(b"\n"):
        if line.startswith(b"="):
            try:
                line = line_of(json.loads(line[1:])).encode()
            except (ValueError, RecursionError):
                line = line[1:]
        lines.append(line)
    return b"\n".join(lines)


def job(data: bytes) -> None:
    """Records are listed, found and cleaned whatever is in one of them."""
    placed("jobs/1122-aaaa.job", checked(data))
    placed("jobs/1122-bbbb.job", line_of({"mdl-job": 1}).encode())
    records = Records(_FOLDER / "jobs")
    for one in records.all():
        json.dumps(shown_facts(one))
    records.clean(10.0)
    json.dumps(shown_facts(records.find("1122-aaaa")))


def listing(data: bytes) -> None:
    """A kept listing is valid or ignored; a valid one can be kept again."""
    origin, listings = HubOrigin("org/repo"), Listings(_FOLDER / "listings")
    listings.put("https://h", origin, Listing("c" * 40, ()))
    (place,) = (_FOLDER / "listings").iterdir()
    place.write_bytes(sealed(data))
    found = listings.get("https://h", origin)
    if found:
        for entry in found.entries:
            check_safe(entry.path)
            assert isinstance(entry.size, int)
        listings.put("https://h", origin, found)
        assert listings.get("https://h", origin) == found


def parsed(data: bytes) -> object:
    """What mdl makes of the JSON that a server answers; None if it refuses it."""
    try:
        return parse_json(data, allow_nan=True)
    except ValueError:
        return None


def tree(data: bytes) -> None:
    """A hub's listing gives safe paths and sizes, or is refused."""
    page, found = parsed(data), FileList()
    for item in page if isinstance(page, list) else ():
        parsed_item = _parse_item(item)
        found.add(parsed_item.name, parsed_item.size, parsed_item.digest)
    for entry in found.entries:
        check_safe(entry.path)
        assert entry.size is None or entry.size >= 0


def relpath(data: bytes) -> None:
    """A parsed path never leads out of its folder, and no two of them are one file."""
    found = []
    for line in text_of(data).split("\n"):
        assert not any(map(is_harmful_in_prose, shown(line)))
        try:
            found.append(RelPath.parse(line))
        except MdlError:
            continue
        check_safe(found[-1])
    refuse_twins(found)
    refuse_twin_folders(found)
    assert len({path.folded for path in found}) == len(found)


def redaction(data: bytes) -> None:
    """Known secrets, and the parts of a URL that may hold secrets, are not shown."""
    secret, *rest = lines_of(data)
    secret, text = secret.strip(), "\n".join(rest)
    if len(secret) >= 4 and secret.isascii() and secret.isprintable() and not set(secret) & set(' *<>"'):
        said = redact(text.replace("{}", secret), Secrets([secret]))
        assert secret not in said
        assert quote(secret, safe="") not in redact(text.replace("{}", quote(secret, safe="")), Secrets([secret]))
    hidden = "Zq9SecretZq9"
    before, _, after = text.partition("{}")
    word = "".join(char for char in after.split("\n")[0] if char.isalnum() or char in "-._~%!$&'()*+,;=:@")
    for url in (
        f"https://u:{hidden}@h/{word}",
        f"https://{hidden}@h",
        f"https://h/p?{hidden}",
        f"http://h:1?a={hidden}",
    ):
        assert hidden not in redact(f"{before} {url} {after}")
    assert hidden not in redact(f"{before} Authorization: Bearer {hidden}")


def safetensors(data: bytes) -> None:
    """A header is valid or refused, and no byte beyond the file is read."""
    found = read_header(lambda count: data[:count])
    assert found is None or found.size >= 10
    why_not_exact(len(data), lambda count: data[:count])


def zip_directory(data: bytes) -> None:
    """The members of an archive have safe paths and do not overlap; each is read whole."""
    path = placed("a.zip", data)
    with path.open("rb") as file:
        found = read_directory(file.fileno(), ArchiveLimits())
    at = 0
    for member in found:
        check_safe(member.path)
        assert at <= member.header_at < member.data_at
        at = member.data_at + member.packed
    assert at <= len(data)
    with open_archive(path, ArchiveLimits(bytes=2**24)) as archive, open(os.devnull, "wb") as null:
        for member in archive.members:
            steps: list[int] = []
            archive.copy(member, null.fileno(), steps.append)
            assert sum(steps) == member.size


def manifest(data: bytes) -> None:
    """A manifest stays the same if it is written and read again."""
    found = Manifest.from_json(data)
    again = Manifest.from_json(found.to_json())
    assert (again.content, again.version, again.files) == (found.content, found.version, found.files)


def history(data: bytes) -> None:
    """A history of releases that is read can be written and read again."""
    try:
        found = from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # as it says of itself; `ReleaseDir` makes one error of them
    for name in (*found.releases, *found.served):
        check_safe(RelPath.parse(name))
    assert from_json(to_json(found)) == found
    found.kept(1, set(found.releases))


def answer(data: bytes) -> None:
    """What a remote answers is files with safe names, a job, a route, or an error of mdl's own."""
    found = parsed(data)
    job_of(found)
    error_in(found)
    if isinstance(found, dict):
        routes_in(found)
    for output in judge(found, "job").outputs:
        check_safe(output.path)
        assert [output.data is not None, output.url != "", output.error is not None].count(True) == 1
        assert output.data is None or output.size == len(output.data)


def settings(data: bytes) -> None:
    """A ``config.toml`` is read, or every mistake in it is told."""
    place = placed("config.toml", data)
    text = read_settings(place)
    if text is not None:
        check_config(place, text)


def base(data: bytes) -> None:
    """A kept copy of a catalog on the web is used or ignored."""
    folder, url = _FOLDER / "bases", "https://team.example/a.toml"
    kept_path(folder, url, ".json").parent.mkdir(parents=True, exist_ok=True)
    kept_path(folder, url, ".json").write_bytes(sealed(data))
    try:
        text = WebBases(folder, None, lambda _words: None)(url, url)
    except LockError:
        return  # offline, and the copy is damaged
    assert isinstance(text, str)


def search(data: bytes) -> None:
    """What a hub's search answers is rows that can be shown as JSON, or an error."""
    found = parsed(data)
    if isinstance(found, list):
        repositories = [parse_found_repo(item, "model") for item in found]
        json.dumps([vars(repository) for repository in repositories if repository], allow_nan=False)


class _Store:
    """A client that has one answer."""

    headers: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.cancel, self.connections = CancelToken(), 1
        self.data, self.status = b"", 200

    @contextmanager
    def open(self, *_: object, **__: object) -> Iterator[_Store]:
        yield self

    def read(self, _opened: object, most: int) -> bytes:
        return self.data[:most]

    def retry(self, _url: str, request: Callable[[], Any], _on_retry: object) -> Any:
        return request()


@cache
def _bucket() -> tuple[Bucket, _Store]:
    store, keys = _Store(), {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    network = network_of(cast("HttpClient", store))
    context = SourceContext(Endpoint("http://h", None, ""), Path("/nonexistent"), network, environ=keys)
    return Bucket("training", Access("http://127.0.0.1:9"), context), store


def bucket_list(data: bytes) -> None:
    """One page of a bucket's list is rows or an error, in whatever encoding; a refusal is an error."""
    bucket, store = _bucket()
    store.data, upload = data, PartedUpload("k", "id")
    for store.status in (200, 400):
        for ask in (lambda: bucket.list(""), lambda: bucket.uploads(""), lambda: bucket.parts(upload)):
            with suppress(MdlError):
                assert all(0 <= getattr(row, "size", 0) < 2**63 for row in ask())
                assert store.status == 200


def job_log(data: bytes) -> None:
    """Any line of a job's file is an event, a fact or text."""
    lines = checked(data).split(b"\n")
    for line in lines:
        event = event_in(facts_in(line) or {})
        if event is not None:
            describe(event)
    list(readable(lines))
    list(raw_lines(lines, "1122-aaaa", "get"))


def gauges(data: bytes) -> None:
    """What another program wrote into the file of metrics is not believed, and stops nothing."""
    assert last_success(placed("mdl.prom", data)) >= 0


def lease(data: bytes) -> None:
    """Whoever is said to hold a mutex is named in words."""
    assert holder_of(placed("lease", data)).startswith("another")


def ollama(data: bytes) -> None:
    """A manifest of Ollama's names files that are there, or none."""
    blob = f"blobs/sha256-{'ab' * 32}"
    files = {"manifests/registry.ollama.ai/library/m/8b": len(data), blob: 1}
    for model in of_ollama(Folder("models", files, lambda _path: text_of(data))) or ():
        assert {file.at for file in model.files} == {blob}


def training_run(data: bytes) -> None:
    """A run's folder whose records hold anything is listed: its checkpoints and whether they are complete."""
    names = ("trainer_state.json", "model.safetensors.index.json", "adapter_config.json", "config.json")
    for name in names:
        placed(f"run/checkpoint-1500/{name}", data)
    placed("run/checkpoint-1500/model-00001-of-00002.safetensors", data)
    placed("run/train_state.json", data)
    for checkpoint in find_run(_FOLDER / "run").checkpoints:
        assert checkpoint.step is None or 0 <= checkpoint.step < 2**63


def expiry(data: bytes) -> None:
    """When a signed URL expires is a moment, or never."""
    for line in lines_of(data):
        found = expires_at(f"https://h/p?{line}")
        assert found == math.inf or 0 <= found < 2**63


def numbers(data: bytes) -> None:
    """What a JSON document holds can be written as text, and what is no size is none."""
    found = parsed(data)
    json.dumps(found)
    for value in found.values() if isinstance(found, dict) else found if isinstance(found, list) else [found]:
        human_bytes(value if isinstance(value, int | float) else None)
        human_duration(value if isinstance(value, int | float) else None)
        if type(value) is int and 0 <= value < 2**63:
            assert whole_number(value) == value
        assert len(brief(value)) < 200


_HERE = (
    *(catalog, lock, journal, receipt, job, listing, tree, relpath, redaction, safetensors, zip_directory, answer),
    *(manifest, history, settings, base, search, bucket_list, job_log, gauges, lease),
    *(ollama, training_run, expiry, numbers),
)
TARGETS: dict[str, Callable[[bytes], None]] = {one.__name__: one for one in (*_HERE, *NET)}
