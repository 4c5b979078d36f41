"""The outside of mdl: commands, streams, documents and exit codes."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from support.data import flip, spoil
from support.faults import honest
from support.faulty_server import FaultyServer
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.polling import until
from support.schemas import document_of
from support.shell import Inside, Run, Shell, bytes_of, done, machine, settings, started, with_environ

from mdl.cli.typer_app import loaded

WEIGHTS = Generated(3 * 2**20, 5)
REPO = Repo("org/tiny", {"config.json": b'{"a": 1}', "vocab.txt": b"one\ntwo\n", "model.bin": WEIGHTS})
SIZE = sum(len(content) for content in REPO.files.values())
SECRET = "opaque-token-777"
"""Nothing but where it comes from says that it is one."""
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
REPOS = [REPO]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path, CATALOG, hub.url)


def test_get_ends_with_the_folder_as_its_one_stdout_line(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """stdout holds the folder and nothing else; progress is on stderr, without escape codes in a pipe. The second run
    of a pinned model makes no request and keeps every file."""
    ran = run("get tiny")
    assert (ran.out, "\x1b" in ran.err) == (f"{shell.models / 'tiny'}\n", False)
    assert bytes_of(shell)["model.bin"] == WEIGHTS[0 : len(WEIGHTS)]
    before = len(hub.requests)
    document = run("get tiny --json").document
    assert (len(hub.requests), document["bytes_fetched"]) == (before, 0)
    assert {file["action"] for file in document["models"][0]["files"]} == {"kept"}


@pytest.mark.parametrize("words", ["--json get tiny", "get tiny --json", "download tiny --json"])
def test_global_flags_before_and_after(run: Run, words: str) -> None:
    """--json means the same before and after the command, and download is get."""
    model = run(words).document["models"][0]
    assert (model["name"], model["status"]) == ("tiny", "present")
    verified = {file["path"]: file["verified"] for file in model["files"]}
    assert verified == {"config.json": "git-sha1", "model.bin": "sha256", "vocab.txt": "git-sha1"}


def test_what_is_on_disk_is_told(run: Run) -> None:
    """list and show --json follow the disk from missing to present; the files are known once they were listed."""
    row = next(one for one in run("list --json").document["models"] if one["name"] == "tiny")
    keys = "name title kind license tags source status files files_present bytes bytes_present path"
    assert set(keys.split()) <= set(row)
    assert (row["status"], run("show tiny --json").document["files"]) == ("missing", [])
    run("get tiny")
    row = run("list --present --json").document["models"][0]
    assert (row["name"], row["status"], row["files"], row["files_present"]) == ("tiny", "present", 3, 3)
    assert row["bytes"] == row["bytes_present"] == SIZE
    files = {file["path"]: file for file in run("show tiny --json").document["files"]}
    assert files["model.bin"]["sha256"] is not None
    assert {file["status"] for file in files.values()} == {"present"}


@pytest.mark.parametrize(
    ("words", "names"),
    [("--kind dataset", ["lost"]), ("--tag small", ["tiny"]), ("ti*", ["tiny"]), ("--missing", ["tiny", "lost"])],
)
def test_list_filters(run: Run, words: str, names: list[str]) -> None:
    """Patterns, --kind, --tag and --missing narrow the list."""
    assert [one["name"] for one in run(f"list {words} --json").document["models"]] == names


def test_a_dry_run_writes_nothing(run: Run, shell: Shell) -> None:
    """-n tells what would be fetched and leaves no file, not even mdl's own folder of partials."""
    document = run("get tiny -n --json").document
    assert {file["action"] for file in document["models"][0]["files"]} == {"planned"}
    assert (document["bytes_to_fetch"], document["bytes_free"] > 0) == (SIZE, True)
    assert not (shell.models / "tiny").exists()
    assert not (shell.models / ".mdl" / "partials").exists()


def test_verify_finds_and_repairs(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """Wrong bytes are 6 and named. A repair that is only planned, or offline (8), asks nobody and mends nothing;
    else it mends. A removed file is 3."""
    run("get tiny")
    good, vocab, model = bytes_of(shell), shell.models / "tiny/vocab.txt", shell.models / "tiny/model.bin"
    spoil(vocab, b"xxx\ntwo\n")
    before = len(hub.requests)
    planned = run("verify tiny --repair -n --json", 6).document["models"][0]["files"]
    assert [file["path"] for file in planned if file["status"] == "corrupt"] == ["vocab.txt"]
    ran = run("verify tiny --repair --offline --json", 8)
    assert (ran.document["error"]["code"], len(ran.document["models"][0]["files"])) == ("LOCK", 3)
    assert "offline" in ran.err
    assert (len(hub.requests), vocab.read_bytes()) == (before, b"xxx\ntwo\n")
    flip(model, 1000)
    ran = run("verify tiny --json", 6)
    wrong = [file["path"] for file in ran.document["models"][0]["files"] if file["status"] == "corrupt"]
    assert (sorted(wrong), "model.bin" in ran.err) == (["model.bin", "vocab.txt"], True)
    run("verify tiny --repair")
    assert bytes_of(shell) == good
    model.unlink()
    run("verify tiny", 3)


def test_a_repair_ends_with_the_reason_why_it_failed(run: Run, shell: Shell) -> None:
    """Without a server it is 5, as for a get, though the file is corrupt (6) or missing (3); no hint says to repair."""
    run("get tiny")
    vocab = shell.models / "tiny/vocab.txt"
    for break_it, verdict in ((lambda: spoil(vocab, b"xxx\ntwo\n"), "corrupt"), (vocab.unlink, "missing")):
        break_it()
        ran = run("verify tiny --repair --retries 1", 5, HTTP_PROXY="http://127.0.0.1:1")
        assert [line.split() for line in ran.out.splitlines()[1:]] == [[verdict, "tiny/vocab.txt"]]
        assert (f"1 {verdict}; 2 files ok" in ran.err, "fetches what is wrong" in ran.err) == (True, False)


def test_verify_shows_what_is_not_ok(run: Run, shell: Shell) -> None:
    """If all is well there is one line, and none with -q; the digests come with -v. Each file that is not ok is shown
    once, then the counts and what helps."""
    run("get tiny")
    fine = run("verify tiny")
    assert (fine.out, re.fullmatch(r"3 files ok, 3\.1 MB, \d+\.\d s\n", fine.err) is not None) == ("", True)
    assert (run("verify tiny -q").out, run("verify tiny -q").err) == ("", "")
    assert re.findall(r"^    (\S+):", run("verify tiny -v").out, re.MULTILINE) == ["git-sha1", "sha256", "git-sha1"]
    spoil(shell.models / "tiny/vocab.txt", b"xxx\ntwo\n")
    (shell.models / "tiny/model.bin").unlink()
    wrong = run("verify tiny -q", 6)
    assert [line.split() for line in wrong.out.splitlines()[1:]] == [
        ["missing", "tiny/model.bin"],
        ["corrupt", "tiny/vocab.txt"],
    ]
    assert wrong.err.startswith("mdl: 1 missing, 1 corrupt; 1 file ok, 8 B, ")
    assert "--repair" in wrong.err.splitlines()[-1]


def test_strict_verify_says_what_helps(mdl: Inside, tmp_path: Path) -> None:
    """A file that no digest is known of is wrong with --strict alone; a lock of this model helps, a repair would not.
    Nothing does for what no catalog has."""
    with FaultyServer(honest(b"x" * 1000)) as server:
        shell = machine(tmp_path / "plain", f'schema = 1\n[models.one]\nsource = "{server.url}/f.dat"\n')
        done(mdl(shell, "get", "one"))
        usual = done(mdl(shell, "verify", "one"))
        assert usual.out.splitlines()[1].split() == ["unverified", "one/f.dat"]
        assert "1 unverified; 0 files ok" in usual.err
        for words in ([], ["one"]):
            strict = done(mdl(shell, "verify", *words, "--strict"), 6)
            assert strict.err.endswith("hint: mdl lock one pins the bytes that are here\n")
        done(mdl(shell, "get", f"{server.url}/g.dat"))
        strict = done(mdl(shell, "verify", "--strict"), 6)
        assert strict.err.endswith(
            "hint: no published digest of them is known here; without --strict they do not count as wrong\n"
        )
        done(mdl(shell, "lock", "one"))
    done(mdl(shell, "verify", "one", "--strict"))


def test_verify_knows_what_no_catalog_names(run: Run) -> None:
    """verify without a name, and with the folder's, checks what was fetched by reference."""
    run("get hf:org/tiny")
    run("verify")
    assert len(run("verify org--tiny --json").document["models"][0]["files"]) == 3


def test_names_that_are_not_there(run: Run) -> None:
    """An unknown name is 3 with what is near; an entry without data is 3 with what to use instead."""
    error = run("get tinny --json", 3).document["error"]
    assert (error["code"], "tiny" in error["hint"]) == ("NOTFOUND", True)
    told = run("get lost", 3).err
    assert ("it burnt down" in told, "tiny" in told) == (True, True)


@pytest.mark.parametrize(
    "flag", ["--jsonn", "--connections=0", *(f"--stall={text}" for text in ("0", "x", "9999999999d", "-1"))]
)
def test_usage_errors_are_documents_too(run: Run, flag: str) -> None:
    """A wrong flag, and a number or a duration of nothing, of nonsense or of ages is 2 and names its flag."""
    ran = run(f"get tiny {flag} --json", 2)
    assert (ran.document["error"]["code"], ran.err.startswith("mdl: ")) == ("USAGE", True)
    assert flag.partition("=")[0] in ran.err


def test_every_error_says_what_to_do(run: Run) -> None:
    """The last line says what to do, whatever it is."""
    codes = {"get hf:org/tiny@main/../x": 11, "get nope": 3, "config x": 2, "--catalog none list": 2}
    for words, code in codes.items():
        assert run(words, code).err.splitlines()[-1].startswith("  hint: ")


def test_offline(run: Run) -> None:
    """--offline is 8 for what is not here and 0 for what is; HF_HUB_OFFLINE means the same."""
    run("get tiny --offline", 8)
    run("get tiny")
    run("get tiny", HF_HUB_OFFLINE="1")


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_offline_opens_no_socket(run: Run, shell: Shell) -> None:
    """With --offline not one socket is made."""
    run("get tiny")
    log = shell.home / "calls"
    trace = ("strace", "-f", "-o", str(log), "-e", "trace=socket,connect")
    done(shell.run("get", "tiny", "--offline", prefix=trace))
    assert not re.search(r"socket\(|connect\(", log.read_text())


def test_targets_of_every_kind(run: Run, shell: Shell, hub: LoopbackHub) -> None:
    """A group, references with a path, a pasted page and a plain URL end in files; --into takes one target,
    also if several files of it are named."""
    run("get all")
    two = "get hf:org/tiny@main/vocab.txt hf:org/tiny@main/config.json"
    folder = Path(run(two).out.strip())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "vocab.txt"]
    assert (folder / "vocab.txt").read_bytes() == b"one\ntwo\n"
    run(f"{two} --into both")
    assert sorted(path.name for path in (shell.home / "both").iterdir() if path.is_file()) == [
        "config.json",
        "vocab.txt",
    ]
    run("get tiny hf:org/tiny --into x", 2)
    page = run(f"get {hub.url}/org/tiny/blob/main/config.json --into page")
    assert page.out == f"{shell.home / 'page' / 'config.json'}\n"
    assert (shell.home / "page" / "config.json").exists()


def test_include_and_exclude(run: Run, shell: Shell) -> None:
    """Globs narrow what is fetched; one that names nothing is 3."""
    run("get tiny --include *.json --include *.txt --exclude voc*")
    assert list(bytes_of(shell)) == ["config.json"]
    run("get tiny --include *.gguf", 3)


def test_path_and_config(run: Run, shell: Shell) -> None:
    """path prints the folder alone, config says where things are and why."""
    assert run("path tiny", 3).out == ""
    run("get tiny")
    assert run("path tiny").out == f"{shell.models / 'tiny'}\n"
    places = {row["what"]: row for row in run("config --json").document["places"]}
    assert (places["models"]["path"], "MDL_HOME" in places["models"]["why"]) == (str(shell.models), True)
    assert places["catalog"]["path"] == str(shell.home / "catalog.toml")


def test_settings_fill_what_no_flag_says(run: Run, shell: Shell) -> None:
    """[defaults] in config.toml are used, a flag wins over them, a misspelt key is 2 with a suggestion."""
    settings(shell, f'[defaults]\nhome = "{shell.home / "elsewhere"}"\nconnections = 2\n')
    places = {row["what"]: row["path"] for row in run("config --json", MDL_HOME="").document["places"]}
    assert places["models"] == str(shell.home / "elsewhere")
    run("get tiny --to x", MDL_HOME="")
    assert run("path tiny --to x", MDL_HOME="").out == f"{shell.home / 'x' / 'tiny'}\n"
    settings(shell, "[defaults]\nconections = 2\n")
    message = run("list --json", 2).document["error"]["message"]
    assert message.endswith("config.toml:2: defaults.conections: unknown key; did you mean connections?")


def test_doctor_says_what_to_do(run: Run) -> None:
    """doctor is 0 if the endpoint answers; each check has a detail, each failure an advice."""
    names = {check["name"] for check in run("doctor --json").document["checks"]}
    assert {"versions", "proxy", "token", "endpoint"} <= names
    checks = run("doctor --json", 5, HF_ENDPOINT="http://127.0.0.1:9").document["checks"]
    failed = [check for check in checks if not check["ok"]]
    assert failed
    assert all(check["advice"] for check in failed)


@pytest.mark.parametrize("is_file", [False, True])
def test_a_token_is_never_shown(run: Run, shell: Shell, is_file: bool) -> None:
    """A secret is in no output, whatever a server says of it and whether a variable or a file holds it."""
    (shell.home / "token").write_text(SECRET)
    token = {"HF_TOKEN_PATH": str(shell.home / "token")} if is_file else {"HF_TOKEN": SECRET}
    ran = run(f"get hf:org/{SECRET} -v --json", 3, **token)
    assert SECRET not in ran.err
    assert SECRET not in run("get hf:org/none -v --json", 3, **token).out


@pytest.mark.fault(138)
def test_no_home_needs_a_folder(shell: Shell) -> None:
    """Without HOME and with a folder named, get works; what it keeps is where XDG says, not in the tester's home."""
    folders = {f"XDG_{kind}_HOME": str(shell.home / kind.lower()) for kind in ("STATE", "CACHE", "CONFIG", "DATA")}
    homeless = ("env", "-u", "HOME", "-u", "MDL_HOME")
    done(with_environ(shell, **folders).run("get", "hf:org/tiny", "--to", str(shell.models), prefix=homeless))
    assert (shell.home / "state" / "mdl" / "downloads.log").exists()


@pytest.mark.fault(135)
@pytest.mark.parametrize("word", ["--version", "--help", "list"])
def test_a_full_stdout_is_told_by_the_code(shell: Shell, word: str) -> None:
    """If stdout is full there is no traceback, and 7, in the system's words."""
    ran = done(shell.run(word, prefix=("sh", "-c", 'exec "$@" >/dev/full', "sh")), 7)
    assert "mdl: stdout: No space left on device\n" in ran.err


def test_a_command_that_cannot_be_loaded(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged installation is a fault (1): one line and what to do, in the document too; -v has the traceback."""
    monkeypatch.setitem(sys.modules, "mdl.cli.outdated", None)
    loaded.cache_clear()  # an earlier test may have had it
    ran = done(mdl(shell, "outdated", "--json"), 1)
    assert ran.err.startswith("mdl: ModuleNotFoundError: ")
    assert (
        ran.document["error"]["hint"]
        == "this is a fault in mdl: run the command again with -v, and report what it prints"
    )


@pytest.mark.fault(140)
def test_a_whole_model_in_a_read_only_folder_is_there(run: Run, shell: Shell) -> None:
    """What is here already needs nothing to be written: even if no lock can be made it is 0."""
    run("get tiny")
    shutil.rmtree(shell.models / ".mdl" / "locks")
    (shell.models / ".mdl" / "locks").touch()
    run("get tiny")


def test_an_interrupted_document_tells_how_far_it_came(shell: Shell) -> None:
    """After SIGINT the document has the files, the bytes and the seconds so far, and 130."""
    with (
        LoopbackHub([REPO], bytes_per_second=200_000) as slow,
        started(with_environ(shell, HF_ENDPOINT=slow.url), "get", "tiny", "--json") as process,
    ):
        until(lambda: any(one.origin == "cdn" and one.body_bytes_sent > 100_000 for one in slow.requests))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    document = document_of(out)
    assert (process.returncode, document["exit_code"], document["error"]["code"]) == (130, 130, "SIGINT")
    assert (0 < document["bytes_fetched"] < len(WEIGHTS), document["seconds"] > 0) == (True, True)
    assert "model.bin" in [file["path"] for file in document["models"][0]["files"]]
