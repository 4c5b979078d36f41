"""``mdl remote``: which remotes there are, whether they work, their jobs and their links; no secret in any of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faults import answers
from support.faulty_server import Answer, FaultyServer, Request, json_reply, reply
from support.job_store import JobStore
from support.runpod_api import KEY, Endpoint, runpod_endpoint
from support.runpod_api import Answer as Told
from support.shell import ExitCode, Inside, Ran, Shell, done, machine, settings, with_environ
from support.terminal import Terminal

pytest.importorskip("boto3")
DEAD = "http://127.0.0.1:9"
SECRET = "canary/secret+key"
JSON = ("Content-Type", "application/json")
TABLES = """
[remotes.store]
kind = "bucket"
url = "s3://training/prefix"
[remotes.gpu]
kind = "runpod"
endpoint = "abc123"
bucket = "store"
[remotes.box]
kind = "trainer"
url = "http://127.0.0.1:9/"
"""
Remote = Callable[..., Ran]
"""``remote("check store", 5)``: words of ``mdl remote`` that must end with this code."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    environ = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": SECRET, "RUNPOD_API_KEY": KEY, "MDL_RETRIES": "1"}
    return machine(tmp_path / "home", **environ)


@pytest.fixture
def remote(mdl: Inside, shell: Shell) -> Remote:
    def run(words: str, code: int = 0, **environ: str) -> Ran:
        return done(mdl(with_environ(shell, **environ), "remote", *words.split()), code)

    return run


@pytest.fixture
def store(s3_url: str, shell: Shell) -> JobStore:
    store = JobStore.at(s3_url)
    settings(shell, store.table)
    return store


@pytest.fixture
def endpoint(tmp_path: Path, shell: Shell) -> Iterator[Endpoint]:
    """An endpoint without workers, whose queue works."""
    with runpod_endpoint(tmp_path / "workers") as found:
        settings(shell, f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{found.base_url}"\n')
        yield found


# --- which remotes there are -------------------------------------------------------------------------------


def test_without_any_remote(shell: Shell, remote: Remote) -> None:
    """It says where and how to add one; the example is right as it stands."""
    ran = remote("list")
    assert (ran.out, str(shell.home / ".config/mdl/config.toml") in ran.err) == ("", True)
    settings(shell, ran.err.partition("\n\n")[2])
    assert [line.split() for line in remote("list").out.splitlines()][1:] == [
        ["store", "bucket", "s3://training/prefix"],
        ["gpu", "runpod", "https://api.runpod.ai/v2/abc123"],
    ]


def test_list_contacts_nothing(shell: Shell, remote: Remote) -> None:
    """Every remote with its kind and address, also as a document; ``mdl remote`` alone lists them too."""
    settings(shell, TABLES)
    rows = [
        {"name": "store", "kind": "bucket", "address": "s3://training/prefix"},
        {"name": "gpu", "kind": "runpod", "address": "https://api.runpod.ai/v2/abc123"},
        {"name": "box", "kind": "trainer", "address": DEAD},
    ]
    assert remote("list --json").document["remotes"] == rows
    assert remote("list").out == remote("").out


@pytest.mark.parametrize("words", ["--help", "remote --help", "fetch --help", "list", "remote list"])
def test_what_asks_no_remote_imports_nothing_for_it(shell: Shell, words: str) -> None:
    """Help, and what contacts nothing, start without boto3 and without httpx, also if there are remotes."""
    settings(shell, TABLES)
    code = f"import sys; from mdl.cli.main import run; run({words.split()!r}); "
    code += "print({'boto3', 'botocore', 'httpx'} & {*sys.modules})"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=shell.environ, cwd=shell.home, capture_output=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("words", ["list", "remote list", "get x", "jobs", "prefetch --all"])
def test_wrong_settings_stop_every_command(shell: Shell, mdl: Inside, words: str) -> None:
    """All mistakes at once with their lines, 2, and no word of what may be a secret."""
    settings(shell, '[remotes.gpu]\nkind = "runpod"\nendpont = "a"\napi_key_env = "rpa_canary"\n[remotes.b]\nx = 1\n')
    ran = done(mdl(shell, *words.split(), "--json"), 2)
    message = ran.document["error"]["message"]
    assert message.startswith("4 mistakes in config.toml:\n")
    assert "config.toml:3: remotes.gpu.endpont: unknown key; did you mean endpoint?" in message
    assert "canary" not in ran.out + ran.err


@pytest.mark.parametrize("words", ["check", "jobs", "status {} j", "cancel {} j", "clean {} --older-than 1d"])
def test_a_remote_that_is_not_there(shell: Shell, remote: Remote, words: str) -> None:
    """An unknown remote is 2, with what is near; offline nothing is asked, which is 8. The document has every key."""
    settings(shell, TABLES)
    words = words if "{}" in words else f"{words} {{}}"
    assert "did you mean store?" in remote(words.format("stor"), 2).err
    document = remote(f"{words.format('store')} --json", 8, MDL_OFFLINE="1").document
    assert (document["error"]["item"], document["jobs"]) == ("store", [])


# --- whether they work -------------------------------------------------------------------------------------


def refusal(status: int, code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code} it is</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (404, "NoSuchBucket", 3),
        (403, "InvalidAccessKeyId", 4),
        (403, "RequestTimeTooSkewed", 4),
        (400, "AuthorizationHeaderMalformed", 2),
    ],
)
def test_a_bucket_that_refuses(shell: Shell, remote: Remote, status: int, words: str, code: int) -> None:
    """The row has the bucket's own words, the exit code is that of its reason, and the error names the remote."""
    with FaultyServer(answers(status, ("Content-Type", "application/xml"), body=refusal(status, words))) as server:
        table = f'[remotes.store]\nkind = "bucket"\nurl = "s3://training"\nendpoint_url = "{server.url}"\n'
        settings(shell, table)
        ran = remote("check store --metrics m.prom", code)
    assert ran.out.startswith("FAIL  bucket: ")
    assert f"{words} it is" in ran.out
    assert ran.err.startswith("mdl: store: s3://training")
    metrics = (shell.home / "m.prom").read_text()
    assert 'mdl_remote_up{remote="store"} 0' in metrics
    assert f'mdl_remote_exit_code{{remote="store"}} {code}' in metrics


def test_a_remote_that_does_not_answer(shell: Shell, remote: Remote) -> None:
    """No connection is 5, for every kind."""
    bucket = f'[remotes.store]\nkind = "bucket"\nurl = "s3://training"\nendpoint_url = "{DEAD}"\n'
    gpu = f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{DEAD}/v2/x"\n'
    settings(shell, f'{bucket}{gpu}[remotes.box]\nkind = "trainer"\nurl = "{DEAD}"\n')
    for name in ("store", "gpu", "box"):
        document = remote(f"check {name} --json", 5).document
        assert ([one["ok"] for one in document["checks"]], document["error"]["code"]) == ([False], "NET")
        assert document["error"]["item"].startswith(name)
        assert "Connection refused" in document["error"]["message"]


def test_a_remote_that_works(store: JobStore, remote: Remote, shell: Shell) -> None:
    """Every part is a row; with --json the same as a document. A metrics file that cannot be written is a warning."""
    store.job("one")
    [row] = remote("check store --json").document["checks"]
    assert (row["name"], row["ok"]) == ("bucket", True)
    assert remote("check store").out == f"ok    {row['name']}: {row['detail']}\n"
    (shell.home / "file").touch()
    assert "mdl: warning: the metrics file" in remote("check store --metrics file/m.prom").err
    (shell.home / "link.prom").symlink_to("elsewhere")
    assert "it is a link" in remote("check store --metrics link.prom", 2).err


def test_every_part_is_shown(endpoint: Endpoint, s3_url: str, shell: Shell, remote: Remote) -> None:
    """An endpoint that answers and whose bucket is gone, and one that is gone and whose bucket answers: every part has
    its row, the exit code is that of the part that fails, and the metrics have the workers and jobs that were told."""
    store = JobStore.at(s3_url)
    endpoint.api.workers += ["a", "b"]
    endpoint.api.submit({}, "run")

    def table(base_url: str, bucket: JobStore) -> None:
        settings(shell, f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{base_url}"\nbucket = "store"\n{bucket.table}')

    table(endpoint.base_url, JobStore(s3_url, "none-such"))
    ran = remote("check gpu --metrics m.prom", 3)
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == [
        *("ok    endpoint", "ok    workers", "ok    queue", "ok    jobs", "FAIL  bucket"),
    ]
    metrics = (shell.home / "m.prom").read_text()
    assert 'mdl_remote_workers{remote="gpu",state="idle"} 2.0\n' in metrics
    assert 'mdl_remote_jobs{remote="gpu",state="in_queue"} 1.0\n' in metrics
    assert 'mdl_remote_check_ok{remote="gpu",check="bucket"} 0\n' in metrics
    table(f"{DEAD}/v2/x", store)
    document = remote("check gpu --json", 5).document
    assert [(one["name"], one["ok"]) for one in document["checks"]] == [("endpoint", False), ("bucket", True)]


# --- their jobs --------------------------------------------------------------------------------------------


def test_each_remote_gets_its_own_key(shell: Shell, remote: Remote) -> None:
    """Two accounts at one host have two keys, and each remote is asked with its own. A remote that needs none is asked
    without one; one whose key is not set is not asked, for no answer to that would help."""

    def api(request: Request, number: int) -> Answer:
        return reply(200, json.dumps({"status": "done", "error": request.header("authorization")}).encode(), JSON)

    with FaultyServer(api) as server:
        table = '[remotes.{0}]\nkind = "api"\nurl = "{1}/{0}"\n'
        named = table + 'api_key_env = "KEY_{0}"\n'
        tables = [named.format(name, server.url) for name in "ABC"]
        settings(shell, "".join([*tables, table.format("D", server.url)]))
        for name in "ABD":
            remote(f"status {name} j", KEY_A="the-key-of-a", KEY_B="the-key-of-b")
        assert "set KEY_C to a valid key" in remote("status C j", 4).err
        sent = [request.header("authorization") for request in server.requests]
    assert sent == ["Bearer the-key-of-a", "Bearer the-key-of-b", None]


def test_the_size_is_that_of_the_results(store: JobStore, remote: Remote) -> None:
    """What a record says of the size of its results is not believed: the bucket lists them."""
    store.job("one", size_bytes=5)
    for words in ("jobs store", "status store one"):
        assert [job["bytes"] for job in remote(f"{words} --json").document["jobs"]] == [1010]


def test_jobs(store: JobStore, remote: Remote) -> None:
    """The newest first, with ages that people read and times that programs read; an error in short, and where it is
    told."""
    store.job("new", "running", 0.2)
    store.job("old", "completed", 40)
    store.job("bad", "failed", 50, error="CUDA out of memory")
    store.put("processes/torn.json", b"{")
    for name in ("", "folder/old"):  # these are no records of jobs
        store.put(f"processes/{name}.json", b"{}")
    ran = remote("jobs store")
    assert [line.split() for line in ran.out.splitlines()][1:] == [
        ["new", "running", "4", "h", "ago", "1.0", "kB"],
        ["old", "done", "40", "days", "ago", "1.0", "kB"],
        ["bad", "failed", "50", "days", "ago", "1.0", "kB"],
        ["torn", "running", "?", "?"],
    ]
    assert "torn: the record of this job is not JSON" in ran.err
    assert "1 ended with an error: 'mdl remote status store JOB' shows it" in ran.err
    rows = {one.pop("id"): one for one in remote("jobs store --json").document["jobs"]}
    assert rows["bad"]["error"] == "CUDA out of memory"
    assert (rows["old"]["bytes"], rows["old"]["updated_at"], rows["torn"]["created_at"]) == (1010, None, None)
    assert rows["old"]["created_at"].endswith("Z")


def test_a_record_that_cannot_be_parsed(store: JobStore, remote: Remote) -> None:
    """Lists within lists, a hundred thousand deep, are a record that cannot be read; the other jobs are listed."""
    store.job("old", "completed", 40)
    store.put("processes/deep.json", b"[" * 100_000)
    assert [one["id"] for one in remote("jobs store --json").document["jobs"]] == ["old", "deep"]
    assert "is not JSON" in remote("status store deep", 6).err


def test_a_table_fits_80_columns(
    store: JobStore, shell: Shell, exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id of RunPod's, which is long, stays on its line in a terminal of 80 columns, in either table."""
    name, seen = "0f4c7a52-93d1-4b8e-a1c6-2f9d5e7b3a10-u1", Terminal(80)
    store.job(name)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", seen.file)
        for words in ("jobs store", "clean store --older-than 30d"):
            assert (
                exit_code(with_environ(shell, TERM="xterm", COLUMNS="80", NO_COLOR="1"), "remote", *words.split()) == 0
            )
    first, second = [line.split() for line in seen.text().splitlines() if name in line]
    assert first == [name, "done", "90", "days", "ago", "1.0", "kB"]
    assert second == [name, "1.0", "kB", "would", "delete", "done", "90", "days", "ago"]


def test_status(store: JobStore, remote: Remote) -> None:
    """One job with all that is known of it; one that the remote does not know is 3."""
    store.job("bad", "failed", 50, error="CUDA out of memory", updated_at="2026-01-02T03:04:05Z")
    out = remote("status store bad").out
    assert "error:   CUDA out of memory\n" in out
    assert "changed: 2026-01-02T03:04:05Z (" in out
    [job] = remote("status store bad --json").document["jobs"]
    assert (job["status"], job["updated_at"]) == ("failed", "2026-01-02T03:04:05Z")
    assert remote("status store none", 3).err.startswith("mdl: store: none: ")


def test_a_status_that_mdl_does_not_know(store: JobStore, remote: Remote, shell: Shell, mdl: Inside) -> None:
    """A job whose record has another word counts as running, and the word is told wherever its status is: it is
    fetched with --allow-running alone, and never cleaned away."""
    store.job("odd", "paused", 90)
    told = "its remote says 'paused', which mdl does not know"
    assert f"error:   {told}\n" in remote("status store odd").out
    [job] = remote("status store odd --json").document["jobs"]
    assert (job["status"], job["error"]) == ("running", told)
    assert f"odd: {told}" in remote("jobs store").err
    assert f"kept    it is still running ({told})" in remote("clean store --older-than 30d").out
    ran = done(mdl(shell, "fetch", "store", "odd"), 14)
    assert f"the job is still running ({told})" in ran.err
    done(mdl(shell, "fetch", "store", "odd", "--allow-running", "-n"))


def test_cancel(endpoint: Endpoint, remote: Remote) -> None:
    """A job of the queue is cancelled, once; one that the endpoint does not know is 3."""
    job = endpoint.api.submit({"type": "train"}, "run")
    assert remote(f"cancel gpu {job.id}").err == f"{job.id}: cancelled\n"
    assert (job.status, endpoint.api.operations()) == ("CANCELLED", ["cancel"])
    [row] = remote(f"cancel gpu {job.id} --json").document["jobs"]
    assert (row["id"], row["status"]) == (job.id, "cancelled")
    endpoint.api.expire()
    assert "gpu" in remote(f"cancel gpu {job.id}", 3).err


# --- their links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [{"error": "the disk is full"}, {"status": "error", "message": "the disk is full"}])
def test_a_worker_that_fails(endpoint: Endpoint, shell: Shell, mdl: Inside, answer: dict[str, str]) -> None:
    """What a worker says of its own failure reaches the user of 'mdl fetch' too: it is no fault of mdl's own."""
    endpoint.api.functions.append(lambda given: answer)
    shell = with_environ(shell, RUNPOD_API_KEY=KEY)
    assert "p1: the worker says: the disk is full" in done(mdl(shell, "fetch", "gpu", "p1"), 5).err


def test_more_than_was_announced(endpoint: Endpoint, shell: Shell, mdl: Inside) -> None:
    """A worker that tells a small size of a large file does not get it past --max-size."""
    with FaultyServer(answers(200, ("ETag", '"x"'), body=b"x" * 5000)) as files:
        item = {"url": f"{files.url}/results/p1/a.bin", "size": 10}
        told = {"bulk_download": {"download_items": [item]}, "process_status": {"status": "completed"}}
        endpoint.api.functions.append(lambda given: told[given["type"]])
        shell = with_environ(shell, RUNPOD_API_KEY=KEY)
        done(mdl(shell, "fetch", "gpu", "p1", "--max-size", "1k"), 6)
    assert not (shell.models / "gpu" / "p1").exists()


def test_a_question_that_is_redirected(endpoint: Endpoint, remote: Remote) -> None:
    """A question to a worker is sent nowhere else; what it met is told."""
    endpoint.api.script("runsync", Told(301, b"", {"Location": "https://127.0.0.1:9/"}))
    assert "redirects, and a POST is not sent on" in remote("status gpu p1", 5).err


def test_an_address_of_ipv6(shell: Shell, remote: Remote) -> None:
    """A host may be an IPv6 address: it is asked, and does not answer here."""
    settings(shell, '[remotes.box]\nkind = "trainer"\nurl = "http://[::1]:9"\n')
    assert "no connection to [::1]:9: " in remote("check box", 5).err


def test_an_id_that_looks_like_a_line(endpoint: Endpoint, remote: Remote) -> None:
    """The id of a job cannot end a line of what is said about it and begin another one."""
    endpoint.api.functions.append(lambda given: {"processes": [{"id": "p1\nmdl: all is well", "error": "no"}]})
    assert "\nmdl: all" not in remote("jobs gpu").err


# --- secrets -----------------------------------------------------------------------------------------------


def test_a_server_that_repeats_everything(shell: Shell, exit_code: ExitCode, capfd: pytest.CaptureFixture[str]) -> None:
    """Keys and signed queries are in no output, traceback or metrics file, whatever a server repeats."""

    def echo(request: Request, number: int) -> Answer:
        heard = " ".join(f"{name}: {value}" for name, value in request.headers)
        words = f"{SECRET} canary_of_gpu {heard}"
        if "list-type" in request.target:
            return reply(403, f"<Error><Code>AccessDenied</Code><Message>{words}</Message></Error>".encode())
        words += " https://h/x?X-Amz-Signature=canarycanary"
        return json_reply({"error": words}, status=403)

    with FaultyServer(echo) as server:
        settings(
            shell,
            f'[remotes.store]\nkind = "bucket"\nurl = "s3://training"\nendpoint_url = "{server.url}"\n'
            f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{server.url}/v2/x"\napi_key_env = "GPU_KEY"\n',
        )
        for name in ("store", "gpu"):
            for words in (f"check {name} --metrics m.prom", f"jobs {name}", f"status {name} j"):
                assert exit_code(with_environ(shell, GPU_KEY="canary_of_gpu"), "remote", *words.split(), "-vv") == 4
                said = "".join(capfd.readouterr())
                assert "canary" not in said, words
                assert "AccessDenied" in said or name == "gpu"
        assert any("canary_of_gpu" in (request.header("authorization") or "") for request in server.requests)
    assert not [path for path in shell.home.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_a_signed_link_is_not_shown(endpoint: Endpoint, remote: Remote) -> None:
    """What a worker answers with is a link whose signature no command shows."""
    job = endpoint.api.submit({}, "run")
    job.status, job.error = "FAILED", "cannot put https://h.example/a.bin?X-Amz-Signature=canary"
    endpoint.api.script("status", Told(200, job.told()))
    ran = remote(f"status gpu {job.id} --json")
    assert "https://h.example/a.bin" in ran.document["jobs"][0]["error"]
    assert "canary" not in ran.out + ran.err + remote(f"status gpu {job.id}").out
