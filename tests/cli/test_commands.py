"""The outside of mdl: commands, streams, documents and exit codes, each in a process of its own."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.schemas import document_of
from support.shell import Shell

WEIGHTS = Generated(3 * 2**20, 5)
REPO = Repo("org/tiny", {"config.json": b'{"a": 1}', "vocab.txt": b"one\ntwo\n", "model.bin": WEIGHTS})
CATALOG = f"""\
schema = 1
[models.tiny]
title = "Tiny"
kind = "model"
license = "mit"
tags = ["small"]
source = "hf:org/tiny"
revision = "{REPO.commit}"
[models.lost]
kind = "dataset"
gone = "it burnt down"
see = ["tiny"]
[groups]
all = ["tiny"]
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub([REPO]) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    (tmp_path / "catalog.toml").write_text(CATALOG)
    return Shell(tmp_path, hub.url)


def test_get_ends_with_the_folder_as_its_one_stdout_line(shell: Shell) -> None:
    """stdout holds the folder and nothing else; progress is on stderr, without escape codes in a pipe."""
    ran = shell.run("get", "tiny")
    assert (ran.code, ran.out) == (0, f"{shell.models / 'tiny'}\n"), ran.err
    assert (shell.models / "tiny" / "model.bin").read_bytes() == WEIGHTS[0 : len(WEIGHTS)]
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    "words", [("--json", "get", "tiny"), ("get", "tiny", "--json"), ("download", "tiny", "--json")]
)
def test_global_flags_before_and_after(shell: Shell, words: list[str]) -> None:
    """--json means the same before and after the command, and download is get."""
    ran = shell.run(*words)
    assert ran.code == 0, ran.err
    assert ran.document["schema"].startswith("mdl.")
    model = ran.document["models"][0]
    assert (model["name"], model["status"]) == ("tiny", "present")
    assert {f["path"]: f["verified"] for f in model["files"]} == {
        "config.json": "git-sha1",
        "model.bin": "sha256",
        "vocab.txt": "git-sha1",
    }


def test_a_finished_download_asks_nobody(shell: Shell, hub: LoopbackHub) -> None:
    """The second run of a pinned model makes no request and keeps every file."""
    assert shell.run("get", "tiny").code == 0
    before = len(hub.requests)
    document = shell.run("get", "tiny", "--json").document
    assert len(hub.requests) == before
    assert {f["action"] for f in document["models"][0]["files"]} == {"kept"}
    assert document["bytes_fetched"] == 0


def test_list_tells_what_is_on_disk(shell: Shell) -> None:
    """list --json has every field of the contract, and follows the disk from missing to present."""
    row = next(m for m in shell.run("list", "--json").document["models"] if m["name"] == "tiny")
    keys = "name title kind license tags source status files files_present bytes bytes_present path"
    assert set(keys.split()) <= set(row)
    assert row["status"] == "missing"
    assert shell.run("get", "tiny").code == 0
    row = shell.run("list", "--present", "--json").document["models"][0]
    assert (row["name"], row["status"], row["files"], row["files_present"]) == ("tiny", "present", 3, 3)
    assert row["bytes"] == row["bytes_present"] == sum(len(content) for content in REPO.files.values())


def test_list_filters(shell: Shell) -> None:
    """Patterns, --kind, --tag and --missing narrow the list."""
    names = [m["name"] for m in shell.run("list", "--kind", "dataset", "--json").document["models"]]
    assert names == ["lost"]
    assert [m["name"] for m in shell.run("list", "--tag", "small", "--json").document["models"]] == ["tiny"]
    assert [m["name"] for m in shell.run("list", "ti*", "--json").document["models"]] == ["tiny"]
    assert len(shell.run("list", "--missing", "--json").document["models"]) == 2


def test_show_tells_of_every_file(shell: Shell) -> None:
    """show --json has the model and, once listed, its files with size, digest and status."""
    assert shell.run("show", "tiny", "--json").document["files"] == []
    assert shell.run("get", "tiny").code == 0
    files = {f["path"]: f for f in shell.run("show", "tiny", "--json").document["files"]}
    assert files["model.bin"]["sha256"] is not None
    assert {f["status"] for f in files.values()} == {"present"}


def test_a_dry_run_writes_nothing(shell: Shell) -> None:
    """-n tells what would be fetched and leaves no file, not even mdl's own folder of partials."""
    document = shell.run("get", "tiny", "-n", "--json").document
    assert {f["action"] for f in document["models"][0]["files"]} == {"planned"}
    assert document["bytes_to_fetch"] == sum(len(content) for content in REPO.files.values())
    assert document["bytes_free"] > 0
    assert not (shell.models / "tiny").exists()
    assert not (shell.models / ".mdl" / "partials").exists()


def test_verify_finds_and_repairs(shell: Shell) -> None:
    """A flipped byte is 6 and named; --repair mends it; a removed file is 3."""
    assert shell.run("get", "tiny").code == 0
    path = shell.models / "tiny" / "model.bin"
    good = path.read_bytes()
    path.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    ran = shell.run("verify", "tiny", "--json")
    assert ran.code == 6
    assert [f["path"] for f in ran.document["models"][0]["files"] if f["status"] == "corrupt"] == ["model.bin"]
    assert "model.bin" in ran.err
    assert shell.run("verify", "tiny", "--repair").code == 0
    assert path.read_bytes() == good
    path.unlink()
    assert shell.run("verify", "tiny").code == 3


def test_names_that_are_not_there(shell: Shell) -> None:
    """An unknown name is 3 with what is near; an entry without data is 3 with what to use instead."""
    ran = shell.run("get", "tinny", "--json")
    assert (ran.code, ran.document["error"]["code"]) == (3, "NOTFOUND")
    assert "tiny" in ran.document["error"]["hint"]
    ran = shell.run("get", "lost")
    assert ran.code == 3
    assert "it burnt down" in ran.err
    assert "tiny" in ran.err


def test_usage_errors_are_documents_too(shell: Shell) -> None:
    """A wrong flag is 2, one line and a hint on stderr, and with --json a document on stdout."""
    ran = shell.run("get", "tiny", "--jsonn")
    assert ran.code == 2
    assert ran.err.startswith("mdl: ")
    ran = shell.run("get", "tiny", "--connections", "0", "--json")
    assert (ran.code, ran.document["exit_code"], ran.document["error"]["code"]) == (2, 2, "USAGE")


def test_offline(shell: Shell) -> None:
    """--offline is 8 for what is not here and 0 for what is; HF_HUB_OFFLINE means the same."""
    assert shell.run("get", "tiny", "--offline").code == 8
    assert shell.run("get", "tiny").code == 0
    offline = replace(shell, extra={"HF_HUB_OFFLINE": "1"})
    assert offline.run("get", "tiny").code == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_offline_opens_no_socket(shell: Shell) -> None:
    """With --offline not one socket is made."""
    assert shell.run("get", "tiny").code == 0
    log = shell.home / "calls"
    ran = shell.run("get", "tiny", "--offline", prefix=("strace", "-f", "-o", str(log), "-e", "trace=socket,connect"))
    assert ran.code == 0, ran.err
    assert not re.search(r"socket\(|connect\(", log.read_text())


def test_into_takes_one_target(shell: Shell) -> None:
    """--into puts the files in the folder itself, and refuses two targets."""
    ran = shell.run("get", "tiny", "--into", "here")
    assert (ran.code, ran.out) == (0, f"{shell.home / 'here'}\n"), ran.err
    assert (shell.home / "here" / "config.json").exists()
    assert shell.run("get", "tiny", "hf:org/tiny", "--into", "here").code == 2


def test_targets_of_every_kind(shell: Shell, hub: LoopbackHub) -> None:
    """A group, a hub reference with a path, a pasted page and a plain URL all end in files."""
    assert shell.run("get", "all").code == 0
    ran = shell.run("get", "hf:org/tiny@main/vocab.txt")
    assert (Path(ran.out.strip()) / "vocab.txt").read_bytes() == b"one\ntwo\n", ran.err
    ran = shell.run("get", f"{hub.url}/org/tiny/blob/main/config.json", "--into", "page")
    assert (shell.home / "page" / "config.json").exists(), ran.err


def test_include_and_exclude(shell: Shell) -> None:
    """Globs narrow what is fetched; one that names nothing is 3."""
    assert shell.run("get", "tiny", "--include", "*.json", "--include", "*.txt", "--exclude", "voc*").code == 0
    assert [path.name for path in (shell.models / "tiny").iterdir()] == ["config.json"]
    assert shell.run("get", "tiny", "--include", "*.gguf").code == 3


def test_path_and_config(shell: Shell) -> None:
    """path prints the folder alone, config says where things are and why."""
    assert shell.run("path", "tiny").out == f"{shell.models / 'tiny'}\n"
    places = {row["what"]: row for row in shell.run("config", "--json").document["places"]}
    assert places["models"]["path"] == str(shell.models)
    assert "MDL_HOME" in places["models"]["why"]
    assert places["catalog"]["path"] == str(shell.home / "catalog.toml")


def test_settings_fill_what_no_flag_says(shell: Shell) -> None:
    """[defaults] in config.toml are used, a flag wins over them, a misspelt key is 2 with a suggestion."""
    folder = shell.home / ".config" / "mdl"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'[defaults]\nhome = "{shell.home / "elsewhere"}"\nconnections = 2\n')
    bare = {key: value for key, value in shell.environ.items() if key != "MDL_HOME"}
    assert bare
    unset = replace(shell, extra={"MDL_HOME": ""})
    assert unset.run("path", "tiny").out == f"{shell.home / 'elsewhere' / 'tiny'}\n"
    assert unset.run("path", "tiny", "--to", "x").out == f"{shell.home / 'x' / 'tiny'}\n"
    (folder / "config.toml").write_text("[defaults]\nconections = 2\n")
    ran = shell.run("list", "--json")
    assert ran.code == 2
    assert "connections" in ran.document["error"]["hint"]


def test_doctor_says_what_to_do(shell: Shell) -> None:
    """doctor is 0 where the endpoint answers; each check has a detail, each failure an advice."""
    ran = shell.run("doctor", "--json")
    assert ran.code == 0, ran.out
    assert {"versions", "proxy", "token", "endpoint"} <= {check["name"] for check in ran.document["checks"]}
    dead = replace(shell, endpoint="http://127.0.0.1:9")
    failed = [check for check in dead.run("doctor", "--json").document["checks"] if not check["ok"]]
    assert failed
    assert all(check["advice"] for check in failed)


def test_a_refused_token_is_never_shown(shell: Shell) -> None:
    """A secret is in no output, whatever goes wrong with it."""
    secret = "hf_" + "s3cr3t" * 5
    ran = replace(shell, extra={"HF_TOKEN": secret}).run("get", "hf:org/none", "-v", "--json")
    assert ran.code in (3, 4)
    assert secret not in ran.out + ran.err


@pytest.mark.fault(138)
def test_no_home_needs_a_folder(shell: Shell) -> None:
    """Without HOME and with a folder named, get works; what it keeps is where XDG says, not in the tester's home."""
    kinds = ("STATE", "CACHE", "CONFIG", "DATA")
    elsewhere = replace(shell, extra={f"XDG_{kind}_HOME": str(shell.home / kind.lower()) for kind in kinds})
    words = ("get", "hf:org/tiny", "--to", str(shell.models))
    ran = elsewhere.run(*words, prefix=("env", "-u", "HOME", "-u", "MDL_HOME"))
    assert ran.code == 0, ran.err
    assert (shell.home / "state" / "mdl" / "downloads.log").exists()


def test_two_targets_of_one_repository_are_both_fetched(shell: Shell) -> None:
    """Two files of one repository named one by one land in one folder; --into refuses them as two."""
    ran = shell.run("get", "hf:org/tiny@main/config.json", "hf:org/tiny@main/vocab.txt")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path(ran.out.strip()).iterdir()) == ["config.json", "vocab.txt"]
    ran = shell.run("get", "hf:org/tiny@main/config.json", "hf:org/tiny@main/vocab.txt", "--into", "x")
    assert ran.code == 2


def test_urls_that_differ_by_query_never_meet(shell: Shell, hub: LoopbackHub) -> None:
    """Two URLs whose queries differ land in two folders; a signature is no difference."""
    from mdl.catalog.model import Catalog, models_of

    names = [
        models_of([f"http://h/d/f.bin{query}"], Catalog(), ())[0].name
        for query in ("?id=1", "?id=2", "?id=1&X-Amz-Signature=abc", "")
    ]
    assert names[0] == names[2]
    assert len(set(names)) == 3


def test_verify_knows_what_no_catalog_names(shell: Shell) -> None:
    """verify without a name, and with the folder's, checks what was fetched by reference."""
    assert shell.run("get", "hf:org/tiny").code == 0
    assert shell.run("verify").code == 0
    ran = shell.run("verify", "org--tiny", "--json")
    assert (ran.code, len(ran.document["models"][0]["files"])) == (0, 3), ran.err


def test_repair_offline_asks_nobody(shell: Shell, hub: LoopbackHub) -> None:
    """--repair with --offline is 8, contacts nobody and leaves the file alone."""
    assert shell.run("get", "tiny").code == 0
    (shell.models / "tiny" / "vocab.txt").write_bytes(b"xxx\ntwo\n")
    before = len(hub.requests)
    ran = shell.run("verify", "tiny", "--repair", "--offline", "--json")
    assert ran.document["models"][0]["files"], ran.err
    assert (ran.code, ran.document["exit_code"], ran.document["error"]["code"]) == (10, 10, "PARTIAL")
    assert "offline" in ran.err
    assert "vocab.txt (corrupt)" in ran.err
    assert len(hub.requests) == before


def test_a_token_file_is_a_secret_too(shell: Shell) -> None:
    """What a token file holds is taken out of whatever a server says."""
    place = shell.home / "token"
    place.write_text("opaque-token-from-file-777")
    server = replace(shell, extra={"HF_TOKEN_PATH": str(place)})
    ran = server.run("get", "hf:org/opaque-token-from-file-777", "--json")
    assert ran.code in (3, 4)
    assert "opaque-token-from-file-777" not in ran.err


@pytest.mark.fault(135)
@pytest.mark.parametrize(("words", "code"), [(["--version"], 7), (["--help"], 7), (["list"], 7)])
def test_a_full_stdout_is_told_by_the_code(shell: Shell, words: list[str], code: int) -> None:
    """Where stdout is full there is no traceback, and 7."""
    ran = shell.run(*words, prefix=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    assert (ran.code, "Traceback" in ran.err) == (code, False), ran.err


@pytest.mark.parametrize("text", ["0", "x", "9999999999d", "-1"])
def test_durations_that_are_none(shell: Shell, text: str) -> None:
    """A duration of nothing, of nonsense or of ages is 2 and names its flag."""
    ran = shell.run("get", "tiny", f"--stall={text}")
    assert ran.code == 2
    assert "--stall" in ran.err


@pytest.mark.fault(140)
def test_a_whole_model_in_a_read_only_folder_is_there(shell: Shell) -> None:
    """What is here already needs nothing to be written: even where no lock can be made it is 0."""
    assert shell.run("get", "tiny").code == 0
    shutil.rmtree(shell.models / ".mdl" / "locks")
    (shell.models / ".mdl" / "locks").touch()
    assert shell.run("get", "tiny").code == 0


def test_every_error_says_what_to_do(shell: Shell) -> None:
    """One line for what failed, one for what to do, whatever it is."""
    for words in (["get", "hf:org/tiny@main/../x"], ["get", "nope"], ["config", "x"], ["--catalog", "none", "list"]):
        ran = shell.run(*words)
        assert ran.code in (2, 3, 11)
        assert [line[:8] for line in ran.err.splitlines()][-1] == "  hint: ", ran.err


def test_an_interrupted_document_tells_how_far_it_came(shell: Shell) -> None:
    """After SIGINT the document has the files and the bytes so far, and 130."""
    with LoopbackHub([REPO], bytes_per_second=200_000) as slow:
        environ = {**shell.environ, "HF_ENDPOINT": slow.url}
        process = subprocess.Popen(
            shell.command("get", "tiny", "--json"),
            env=environ,
            cwd=shell.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while not any(r.origin == "cdn" and r.body_bytes_sent > 100_000 for r in slow.requests):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    document = document_of(out)
    assert (process.returncode, document["exit_code"], document["error"]["code"]) == (130, 130, "SIGINT")
    assert 0 < document["bytes_fetched"] < len(WEIGHTS)
    assert "model.bin" in [f["path"] for f in document["models"][0]["files"]]


def test_a_repair_can_be_only_planned(shell: Shell, hub: LoopbackHub) -> None:
    """verify --repair -n names what is wrong, asks nobody and mends nothing."""
    assert shell.run("get", "tiny").code == 0
    path = shell.models / "tiny" / "vocab.txt"
    path.write_bytes(b"xxx\ntwo\n")
    before = len(hub.requests)
    ran = shell.run("verify", "tiny", "--repair", "-n", "--json")
    assert (ran.code, len(hub.requests), path.read_bytes()) == (6, before, b"xxx\ntwo\n")
    assert [f["path"] for f in ran.document["models"][0]["files"] if f["status"] == "corrupt"] == ["vocab.txt"]
