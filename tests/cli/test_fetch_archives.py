"""``mdl fetch`` of jobs whose results are archives, from whatever kind of remote: unpacked as by ``unpack``."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.data import files_below, write_files
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.moto_store import s3_api
from support.shell import Inside, Shell, done, settings
from support.trainer import training_server
from support.weights import PICKLE, whole_file

WEIGHTS = whole_file("w.safetensors")
FILES = {"w.safetensors": WEIGHTS, "config.json": b"{}"}


def zipped(files: Mapping[str, bytes] = FILES) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: Mapping[str, bytes] = FILES, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Web:
    """A machine with the remote ``web``, an API whose answers name files of its own."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.bodies: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.url = ""

    def __call__(self, request: Request, number: int) -> Answer:
        body, headers = self.bodies.get(request.path, (b"no such file", {}))
        return reply(200 if headers else 404, body, *headers.items())

    def serve(self, path: str, body: bytes, **headers: str) -> None:
        told = {"Content-Type": "application/octet-stream"}
        told |= {key.replace("_", "-"): value for key, value in headers.items()}
        self.bodies[path] = (body, told)

    def answer(self, value: Any) -> None:
        text = json.dumps(value).replace("{url}", self.url)
        self.serve("/results/j1", text.encode(), Content_Type="application/json")

    @property
    def files(self) -> set[str]:
        return set(files_below(self.shell.models / "web"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    web = Web(Shell(tmp_path))
    with FaultyServer(web) as server:
        web.url = server.url
        settings(web.shell, f'[remotes.web]\nkind = "api"\nurl = "{server.url}/results/{{job}}"\n')
        yield web


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/f/result.zip", zipped(), {}),
        ("/f/result.tar", tarred(), {}),
        ("/f/result.tar.gz", tarred(mode="w:gz"), {}),
        ("/f/abc", zipped(), {"Content_Type": "application/zip"}),
        ("/f/abc", tarred(mode="w:gz"), {}),
        ("/f/result.v2", zipped(), {}),
        ("/f/x.bin", zipped(), {"Content_Type": "application/zip"}),
        ("/f/x.bin", tarred(), {}),
        ("/f/x.bin", tarred(mode="w:gz"), {"Content_Type": "application/gzip"}),
        ("/f/model.pt", zipped(), {}),
        ("/f/export.php", zipped(), {"Content_Type": "application/zip"}),
        ("/results/j1", zipped(), {"Content_Type": "application/zip"}),
        ("/results/j1", zipped(), {"Content_Disposition": 'attachment; filename="run.zip"'}),
        ("/results/j1", zipped(), {}),
        ("/results/j1", tarred(mode="w:gz"), {"Content_Type": "application/gzip"}),
    ],
    ids=[
        "zip",
        "tar",
        "tar.gz",
        "type of a link",
        "bytes of a link",
        "odd suffix",
        "zip called bin",
        "tar called bin",
        "tar.gz called bin",
        "zip called pt",
        "made by a script",
        "type",
        "disposition",
        "bytes",
        "gzip",
    ],
)
def test_an_archive_is_unpacked(
    mdl: Inside, web: Web, tmp_path: Path, path: str, body: bytes, headers: dict[str, str]
) -> None:
    """Whatever says that it is an archive, its name, its type or its first bytes: what it holds is put into service,
    and not fetched again."""
    web.answer({"zip_url": f"{{url}}{path}"})
    web.serve(path, body, **headers)
    done(mdl(web.shell, "fetch", "web", "j1", "--release", str(tmp_path / "site")))
    assert web.files == {"j1/w.safetensors", "j1/config.json"}
    assert set(files_below(tmp_path / "site" / "current")) == {"w.safetensors", "config.json", "mdl-manifest.json"}
    again = done(mdl(web.shell, "fetch", "web", "j1", "--json")).document
    assert again["bytes_fetched"] == 0
    assert {file["action"] for file in again["models"][0]["files"]} == {"kept"}
    done(mdl(web.shell, "fetch", "web", "j1", "-n"))
    done(mdl(web.shell, "verify", "web/j1"))


@pytest.mark.parametrize(
    ("name", "magic", "command"),
    [("model.tar.zst", b"\x28\xb5\x2f\xfd", "tar --zstd -xf"), ("model.7z", b"7z\xbc\xaf\x27\x1c", "7z x")],
)
def test_an_archive_that_mdl_does_not_unpack(
    mdl: Inside, web: Web, tmp_path: Path, name: str, magic: bytes, command: str
) -> None:
    """It is fetched, and not put into service: it is named, with the command that unpacks it. Beside other files it may
    be data."""
    web.answer({"archive_url": f"{{url}}/f/{name}"})
    web.serve(f"/f/{name}", magic + b"x" * 500)
    done(mdl(web.shell, "fetch", "web", "j1"))
    ran = done(mdl(web.shell, "fetch", "web", "j1", "--release", str(tmp_path / "site")), 6)
    assert command in ran.err
    assert web.files == {f"j1/{name}"}
    assert not (tmp_path / "site" / "current").exists()
    web.answer({"archive_url": f"{{url}}/f/{name}", "labels": "{url}/f/labels.txt"})
    web.serve("/f/labels.txt", b"cat")
    done(mdl(web.shell, "fetch", "web", "j1", "--release", str(tmp_path / "site")))


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.PICKLE"])
@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_a_compressed_estimator_is_no_archive(
    mdl: Inside, web: Web, tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    """joblib compresses what it writes, and loads it as it is."""
    web.answer({"model_url": f"{{url}}/f/{name}"})
    web.serve(f"/f/{name}", compress(b"\x80\4." + b"x" * 500))
    done(mdl(web.shell, "fetch", "web", "j1", "--release", str(tmp_path / "site")))
    assert (tmp_path / "site" / "current" / name).is_file()


def test_files_beside_an_archive(mdl: Inside, web: Web) -> None:
    """The members of an archive lie beside the job's other files, which come as ever; the archive may be kept."""
    web.answer({"zip_url": "{url}/f/a.zip", "notes": "{url}/f/notes.txt", "second": "{url}/f/b.tar"})
    web.serve("/f/a.zip", zipped())
    web.serve("/f/b.tar", tarred({"vocab.txt": b"a"}))
    web.serve("/f/notes.txt", b"text")
    done(mdl(web.shell, "fetch", "web", "j1", "--keep-archive"))
    own = {"j1/w.safetensors", "j1/config.json", "j1/notes.txt", "j1/vocab.txt"}
    assert web.files == own | {"j1_a.zip", "j1_b.tar"}
    assert done(mdl(web.shell, "fetch", "web", "j1", "--json")).document["bytes_fetched"] == 0
    assert len(done(mdl(web.shell, "fetch", "web", "j1", "--json")).document["models"][0]["files"]) == 4


def test_one_that_failed_hinders_no_other(mdl: Inside, web: Web) -> None:
    """What an archive holds comes though another file of the job is not there."""
    web.answer({"zip_url": "{url}/f/a.zip", "model_url": "{url}/f/gone"})
    web.serve("/f/a.zip", zipped())
    ran = done(mdl(web.shell, "fetch", "web", "j1", "--json"), 3)
    assert [file["path"] for file in ran.document["models"][0]["files"] if file["error"]] == ["gone"]
    assert web.files == {"j1/w.safetensors", "j1/config.json"}


def test_what_is_here_is_not_fetched_again(mdl: Inside, web: Web) -> None:
    """Of a job that has more files by now, those that may be archives and are here are kept, one by one."""
    answer = {"first_url": "{url}/f/x.bin", "zip_url": "{url}/f/a.zip"}
    web.serve("/f/x.bin", whole_file("model.pt"))
    web.serve("/f/a.zip", zipped())
    web.answer(answer)
    done(mdl(web.shell, "fetch", "web", "j1"))
    web.answer(answer | {"second_url": "{url}/f/y.bin"})
    web.serve("/f/y.bin", zipped({"vocab.txt": b"a"}))
    ran = done(mdl(web.shell, "fetch", "web", "j1", "--json"))
    actions = {file["path"]: file["action"] for file in ran.document["models"][0]["files"]}
    kept = dict.fromkeys(("x.bin", "w.safetensors", "config.json"), "kept")
    assert actions == kept | {"vocab.txt": "fetched"}
    assert done(mdl(web.shell, "fetch", "web", "j1", "--json")).document["bytes_fetched"] <= 1
    planned = done(mdl(web.shell, "fetch", "web", "j1", "-n", "--json")).document
    assert {file["action"] for file in planned["models"][0]["files"]} == {"kept"}


def test_a_place_that_is_taken(mdl: Inside, web: Web) -> None:
    """A stranger's file where one that may be no archive would lie is not overwritten, and nothing is fetched in vain;
    the right bytes are adopted."""
    place = web.shell.models / "web" / "j1" / "x.bin"
    place.parent.mkdir(parents=True)
    body = whole_file("model.pt")
    web.serve("/f/x.bin", body)
    row = {"name": "x.bin", "url": "{url}/f/x.bin"}
    digest = hashlib.sha256(body).hexdigest()
    for data, told, code in ((b"mine", {}, 7), (body, {"sha256": digest}, 0)):
        web.answer({"files": [row | told]})
        place.write_bytes(data)
        ran = done(mdl(web.shell, "fetch", "web", "j1", "--json"), code)
        assert ran.document["bytes_fetched"] == 0
        assert place.read_bytes() == data
    place.write_bytes(b"mine")
    done(mdl(web.shell, "fetch", "web", "j1", "--force"))
    assert place.read_bytes() == body


def test_a_bad_archive_hinders_no_other(mdl: Inside, web: Web) -> None:
    """Of several archives one that cannot be unpacked fails alone, with its own reason."""
    web.answer({"zip_url": "{url}/f/a.zip", "model_url": "{url}/f/x.bin"})
    web.serve("/f/a.zip", zipped())
    web.serve("/f/x.bin", zipped({"../x": b"x"}))
    ran = done(mdl(web.shell, "fetch", "web", "j1", "--json"), 11)
    assert [file["path"] for file in ran.document["models"][0]["files"] if file["error"]] == ["x.bin"]
    assert web.files == {"j1/w.safetensors", "j1/config.json"}


@pytest.mark.fault(411)
def test_twins(mdl: Inside, web: Web) -> None:
    """A member that would lie where a file of the job does is refused, before anything of the archive is there."""
    web.answer({"zip_url": "{url}/f/a.zip", "config": "{url}/f/Config.json"})
    web.serve("/f/a.zip", zipped())
    web.serve("/f/Config.json", b"{}")
    done(mdl(web.shell, "fetch", "web", "j1"), 11)
    assert "j1/w.safetensors" not in web.files


@pytest.mark.parametrize(("words", "names"), [(("--include", "*.json"), {"config.json"}), ((), set(FILES))])
def test_include_picks_among_members(mdl: Inside, web: Web, words: tuple[str, ...], names: set[str]) -> None:
    """Where no file of the job itself is meant, patterns pick among the members of its archive."""
    web.answer({"zip_url": "{url}/f/a.zip"})
    web.serve("/f/a.zip", zipped())
    done(mdl(web.shell, "fetch", "web", "j1", *words))
    assert web.files == {f"j1/{name}" for name in names}
    done(mdl(web.shell, "fetch", "web", "j1", "--include", "*.zip"))
    assert web.files == {f"j1/{name}" for name in FILES}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("policy.zip", zipped({"data": b"{}", "policy.pth": b"PK", "policy.optimizer.pth": b"PK"})),
        ("model.keras", whole_file("model.keras")),
        ("model.pt", whole_file("model.pt")),
        ("x.bin", whole_file("model.pt")),
        ("x", whole_file("model.pt")),
        ("best.pth.tar", PICKLE + bytes(100)),
        ("model.nemo", whole_file("model.nemo")),
        ("x.bin", bytes(range(256))),
        ("table.csv.gz", gzip.compress(b"a,b\n", mtime=0)),
        ("words", b"not an archive, and no model\0"),
    ],
    ids=[
        *("a policy", "Keras", "torch", "torch called bin", "torch without a suffix", "a pickle", "NeMo", "numbers"),
        *("gzip", "no suffix"),
    ],
)
def test_what_is_no_archive_stays(mdl: Inside, web: Web, name: str, body: bytes) -> None:
    """Weights that are a zip, and files that are none, are kept as they are, and not fetched twice."""
    web.answer({"model_url": f"{{url}}/f/{name}"})
    web.serve(f"/f/{name}", body)
    done(mdl(web.shell, "fetch", "web", "j1"))
    assert (web.shell.models / "web" / "j1" / name).read_bytes() == body
    assert done(mdl(web.shell, "fetch", "web", "j1", "--json")).document["bytes_fetched"] <= 1
    done(mdl(web.shell, "verify", "web/j1"))


@pytest.mark.fault(402, 411)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (zipped()[:-10], 6),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), 6),
        (b"<html><title>hello</title></html>", 6),
        (zipped({"../x": b"x"}), 11),
        (zipped({"w.safetensors": WEIGHTS, "W.safetensors": WEIGHTS}), 11),
        (zipped({"a/../../b": b"x"}), 11),
    ],
    ids=["cut", "a 7z", "a page", "leads out", "twins", "leads out inside"],
)
def test_a_bad_archive(mdl: Inside, web: Web, tmp_path: Path, body: bytes, code: int) -> None:
    """What is cut, lies or leads out publishes nothing, and is not put into service."""
    web.answer({"zip_url": "{url}/f/a.zip"})
    web.serve("/f/a.zip", body)
    ran = mdl(web.shell, "fetch", "web", "j1", "--release", str(tmp_path / "site"))
    assert ran.code == code, ran.err
    assert not (tmp_path / "site" / "current").exists()
    assert not web.files


def test_an_archive_in_a_bucket(mdl: Inside, s3_url: str, tmp_path: Path) -> None:
    """An archive among the results in a bucket is unpacked where it lies."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_ENDPOINT_URL_S3": s3_url}
    shell = Shell(tmp_path, extra=keys)
    settings(shell, '[remotes.store]\nkind = "bucket"\nurl = "s3://archives-of-jobs/pre"\n')
    api = s3_api(s3_url)
    api.create_bucket(Bucket="archives-of-jobs")
    for job, name in (("p1", "out/model.tar.gz"), ("p2", "out/x.bin"), ("p3", "out/x")):
        api.put_object(Bucket="archives-of-jobs", Key=f"pre/results/{job}/{name}", Body=tarred(mode="w:gz"))
        for fetched in (True, False):
            ran = done(mdl(shell, "fetch", "store", job, "--json"))
            assert (ran.document["bytes_fetched"] > 1) is fetched
            names = set(files_below(shell.models / "store" / job))
            assert names == {"out/w.safetensors", "out/config.json"}


def test_the_archive_of_a_managed_training_service(mdl: Inside, s3_url: str, tmp_path: Path) -> None:
    """Of what such a service keeps of a job, the archive called ``model`` is the model; the rest is left, and said."""
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret", "AWS_ENDPOINT_URL_S3": s3_url}
    shell = Shell(tmp_path, extra=keys)
    settings(shell, '[remotes.store]\nkind = "bucket"\nurl = "s3://services/pre"\n')
    api = s3_api(s3_url)
    api.create_bucket(Bucket="services")
    archive = tarred(mode="w:gz")
    others = {"source/sourcedir.tar.gz": archive, "output/output.tar.gz": archive, "debug-output/index/0.json": b"{}"}
    for name, data in {"output/model.tar.gz": archive, **others}.items():
        api.put_object(Bucket="services", Key=f"pre/job-1/{name}", Body=data)
    ran = done(mdl(shell, "fetch", "store", "job-1"))
    assert set(files_below(shell.models / "store" / "job-1")) == {"output/w.safetensors", "output/config.json"}
    assert "left out: 3 files" in ran.err
    assert done(mdl(shell, "fetch", "store", "job-1", "--json")).document["bytes_fetched"] == 0


@pytest.fixture
def box(tmp_path: Path) -> Iterator[tuple[Shell, Path]]:
    """A machine with the remote ``box``, a training server, and the folder of the runs there."""
    runs = tmp_path / "runs"
    with training_server(runs) as url:
        shell = Shell(tmp_path)
        settings(shell, f'[remotes.box]\nkind = "trainer"\nurl = "{url}"\n')
        yield shell, runs


def trained(runs: Path, job: str, **facts: Any) -> None:
    """A job of the training server, and what is to be known of it."""
    told = {"status": "completed", **facts}
    write_files(runs / job, {**FILES, "job.json": json.dumps(told).encode()})


@pytest.mark.parametrize("packing", ["zip", "tar", "tar.gz"])
def test_an_archive_of_a_training_server(mdl: Inside, box: tuple[Shell, Path], tmp_path: Path, packing: str) -> None:
    """Its bytes decide which archive it is, whatever the server calls it; it is unpacked, and kept only on demand,
    under the name of its format."""
    shell, runs = box
    trained(runs, "j1", format=packing)
    done(mdl(shell, "fetch", "box", "j1", "--release", str(tmp_path / "site")))
    assert set(files_below(shell.models / "box")) == {"j1/w.safetensors", "j1/config.json"}
    assert set(files_below(tmp_path / "site" / "current")) == {"w.safetensors", "config.json", "mdl-manifest.json"}
    assert done(mdl(shell, "fetch", "box", "j1", "--json")).document["bytes_fetched"] == 0
    keep = ("fetch", "box", "j1", "--keep-archive", "--json")
    assert done(mdl(shell, *keep)).document["bytes_fetched"] > 0
    assert (shell.models / "box" / f"model_j1.{packing}").is_file()
    assert done(mdl(shell, *keep)).document["bytes_fetched"] == 0
    done(mdl(shell, "verify", "box/j1"))


@pytest.mark.fault(402)
@pytest.mark.parametrize("packing", ["zip", "tar", "tar.gz"])
def test_a_cut_archive_of_a_training_server(mdl: Inside, box: tuple[Shell, Path], packing: str) -> None:
    """A stream that ends in good order and too early is damage, in each format; nothing of it is published."""
    shell, runs = box
    trained(runs, "j1", format=packing, faults={"short_at": len(WEIGHTS) if packing != "tar.gz" else 100})
    done(mdl(shell, "fetch", "box", "j1"), 6)
    assert not files_below(shell.models / "box")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"detail": "no room"}', 6),
        (b"<html><title>Please sign in</title></html>", 4),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), 6),
        (gzip.compress(b"no tar", mtime=0), 6),
        (b"", 6),
    ],
    ids=["a message", "a sign-in page", "a 7z", "gzip without a tar", "nothing"],
)
def test_a_training_server_that_sends_no_archive(mdl: Inside, tmp_path: Path, body: bytes, code: int) -> None:
    """What is no archive of the three formats is refused as a file of any other remote is."""

    def answer(request: Request, number: int) -> Answer:
        if request.path.endswith("/download/model"):
            return reply(200, body, ("Content-Type", "application/zip"))
        is_job = request.path == "/api/training/jobs/j1"
        return reply(
            200 if is_job else 404, b'{"id": "j1", "status": "completed"}', ("Content-Type", "application/json")
        )

    shell = Shell(tmp_path)
    with FaultyServer(answer) as server:
        settings(shell, f'[remotes.box]\nkind = "trainer"\nurl = "{server.url}"\n')
        done(mdl(shell, "fetch", "box", "j1", "--retries", "1"), code)
    assert not files_below(shell.models / "box")
