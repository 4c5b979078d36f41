"""The schemas of all that mdl writes as JSON: that they are right, that they can fail, and that mdl prints them."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, meta
from support.cases import each
from support.loopback_hub import LoopbackHub, Repo
from support.schemas import LAST, document_of, events_of, is_right, mistakes
from support.shell import Ran, Shell, settings, with_environ

from mdl import schemas
from mdl.cli import main
from mdl.cli.commands import commands
from mdl.console.documents import document
from mdl.errors import Cancelled, MdlError, UsageError
from mdl.jobs.job import Invocation, Job, shown_facts

HEAD = {"schema", "ok", "exit_code", "error"}
COMMANDS = commands()
WORDS = sorted(COMMANDS)
CATALOG = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n[models.lost]\ngone = "it burnt down"\n'
ENUMS_AND_PATTERNS = (
    *("schema", "code", "event", "status", "method", "action", "verified", "url", "sha256", "expected", "actual"),
    *("time", "started_at", "finished_at"),
)
STARTED = "2026-11-22T07:58:21.391Z"
LOG = "/home/me/1122-abcd.log"
JOB = shown_facts(
    Job("1122-abcd", "get", (), "1-2-3", "box", Invocation(), STARTED, LOG, "running", 5, 10, 2.5, 2.0, "tiny/f.bin")
) | {"models": ["tiny"]}
STOPPED = {"bytes_per_second": None, "eta_seconds": None, "finished_at": "2026-11-22T08:00:00.000Z"}
ERROR = {"code": "NET", "message": "503", "hint": None, "item": "tiny/f.bin"}
JOBS = [
    JOB,
    JOB | STOPPED | {"status": "done", "exit_code": 0, "file": None},
    JOB | STOPPED | {"status": "failed", "exit_code": 5, "error": ERROR},
    JOB | STOPPED | {"status": "paused", "exit_code": 75, "error": ERROR | {"code": "PAUSED"}},
    JOB | STOPPED | {"status": "cancelled", "exit_code": 143, "error": ERROR | {"code": "CANCELLED"}},
    JOB | {"status": "dead", "eta_seconds": None, "bytes_total": None, "file": None, "log": None},
]


def inside(shell: Shell, *words: str) -> Ran:
    """A command line run in this process, which is quicker."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("signal.signal", lambda *_: None)
        patch.setattr("sys.argv", ["mdl", *words])
        patch.setattr("os.environ", shell.environ)
        patch.chdir(shell.home)
        code = main.run(words)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "catalog.toml").write_text(CATALOG)
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What mdl really wrote, by the name of its schema."""
    home = tmp_path_factory.mktemp("home")
    (home / "catalog.toml").write_text(CATALOG)
    with LoopbackHub([Repo("org/tiny", {"config.json": b"{}", "model.bin": b"1" * 5000}, lfs_threshold=9)]) as hub:
        shell = Shell(home, hub.url)
        got = inside(shell, "get", "tiny", "--json", "--progress", "json")
        failed = inside(shell, "get", "tiny", "lost", "--json", "--progress", "json")
        listed, verified = inside(shell, "list", "--json"), inside(shell, "verify", "--json")
    return {
        "get": [got.document, failed.document],
        "list": [listed.document],
        "verify": [verified.document],
        "jobs": [document("jobs", {"jobs": [job]}, exit_code=0, error=None) for job in JOBS],
        "event": [*got.events, *failed.events],
    }


# --- that they are right -----------------------------------------------------------------------------------


@each("name", schemas.names())
def test_each_is_a_schema_by_itself(name: str) -> None:
    """Each is a valid schema of draft 2020-12 that refers to nothing outside and says which document it is of."""
    schema = schemas.schema(name)
    meta.validate(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == schema["properties"]["schema"]["const"] == f"mdl.{name}/1"
    assert set(schema["required"]) <= set(schema["properties"])
    refers = set(re.findall(r'"\$ref": "(.*?)"', json.dumps(schema)))
    assert refers == {f"#/$defs/{known}" for known in schema["$defs"]}


def test_every_command_has_one() -> None:
    """There is one for each command, one for the lines of progress, and one for a call that names no command."""
    assert set(schemas.names()) == {COMMANDS[word].see or word for word in WORDS} | {"event", "mdl"}


@each("name", [name for name in schemas.names() if name != "event"])
def test_a_failure_has_every_key(name: str) -> None:
    """Every key that is required has a default, and with these the document of a failure is as it should be."""
    assert {*HEAD, *schemas.empty(name)} == set(schemas.schema(name)["required"])
    failed = document(name, schemas.empty(name), exit_code=2, error=UsageError("no"))
    assert mistakes(name, failed) == []
    assert mistakes(name, failed | {"ok": True})
    assert mistakes(name, failed | {"exit_code": 0})
    assert mistakes(name, failed | {"exit_code": 0, "ok": True})
    assert mistakes(name, failed | {"exit_code": 99})


def test_every_error_is_known() -> None:
    """The codes and exit codes are those of the errors there are, each pair as its class has it."""
    definitions = schemas.schema("get")["$defs"]
    errors: list[Any] = [MdlError, Cancelled, Cancelled(terminated=True)]
    for one in errors:
        errors += one.__subclasses__() if isinstance(one, type) else []
    assert {one.code for one in errors} == set(definitions["code"]["enum"])
    assert {0, *(one.exit_code for one in errors)} == set(definitions["exit_code"]["enum"])
    failure = Draft202012Validator({**definitions["failure"], "$defs": definitions})
    facts = {"message": "no", "hint": None, "item": None}
    for one in errors:
        assert failure.is_valid({"code": one.code, "exit_code": one.exit_code, **facts}), one
        assert not failure.is_valid({"code": one.code, "exit_code": one.exit_code + 1, **facts}), one


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        *((f"{word} --no-such-flag", COMMANDS[word].see or word) for word in WORDS),
        *(("nope", "mdl"), ("--no-such-flag", "mdl"), ("get tiny", "get"), ("download tiny", "get")),
    ],
)
def test_a_wrong_call_is_a_whole_document(shell: Shell, words: str, schema: str) -> None:
    """What any command says to a flag that it does not know, or to settings that are broken, has the command's own keys
    too; a command that is not there has a document as well."""
    if "--no-such-flag" not in words:
        settings(shell, "[defaults\n")
    ran = inside(shell, *words.split(), "--json", "--progress=json")
    assert (ran.code, ran.document["schema"]) == (2, f"mdl.{schema}/1")
    assert [one["event"] for one in ran.events] == ["failed"]


def test_a_wrong_call_is_a_document_by_a_variable_too(shell: Shell) -> None:
    """MDL_JSON is --json, also where no command could be begun."""
    ran = inside(with_environ(shell, MDL_JSON="1"), "get", "--no-such-flag")
    assert (ran.code, ran.document["schema"]) == (2, "mdl.get/1")


def test_documents_that_no_other_test_looks_at(shell: Shell) -> None:
    """config path, path, add, remove and unpack --list each print what their schema says."""
    [place] = inside(shell, "config", "path", "--json").document["places"]
    assert (place["what"], place["path"] + "\n") == ("settings", inside(shell, "config", "path").out)
    assert inside(shell, "path", "tiny", "--json").document["path"] is None
    book = str(shell.home / "catalog.toml")
    for words in (["add", "bert", "hf:org/bert"], ["remove", "bert"]):
        assert inside(shell, *words, "--catalog", book, "--json").document["name"] == "bert"
    with zipfile.ZipFile(shell.home / "a.zip", "w") as archive:
        archive.writestr("model.bin", b"1")
    listed = inside(shell, "unpack", "a.zip", "--list", "--json").document
    assert ([one["path"] for one in listed["members"]], listed["path"]) == (["model.bin"], None)


def test_the_demo_prints_one_document(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With --json stdout is the demo's to write to: what its commands say goes to stderr."""
    monkeypatch.setattr("mdl.demo.Demo._download", lambda self, _hub: self._step("1.", "list"))
    monkeypatch.setattr("mdl.demo.Demo._release", lambda _self: None)
    story = inside(shell, "demo", "--in", str(shell.home / "play"), "--json").document["story"]
    assert any(line.startswith("$ mdl list") for line in story)
    out, err = capfd.readouterr()
    assert (out, "tiny-demo" in err) == ("", True)


# --- that they can fail ------------------------------------------------------------------------------------


def spoilt(value: Any, key: str | int | None = None) -> Iterator[tuple[str, Any]]:
    """``value`` with one thing wrong in it: a key gone, one too many, another type, another word, less than nothing."""
    if isinstance(value, dict):
        yield "one more", {**value, "one-more": 1}
        for name, one in value.items():
            yield f"{name} gone", {other: value[other] for other in value if other != name}
            yield from ((f"{name}.{what}", {**value, name: bad}) for what, bad in spoilt(one, name))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from ((f"{at}.{what}", [*value[:at], bad, *value[at + 1 :]]) for what, bad in spoilt(one, at))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield "negative", -1
    elif isinstance(value, str) and key in ENUMS_AND_PATTERNS:
        yield "word", f"{value}?"
    if key is not None:
        yield "type", "wrong" if isinstance(value, dict | list) else {"wrong": [1]}


@pytest.mark.parametrize("name", ["get", "list", "verify", "jobs", "event"])
def test_whatever_is_wrong_is_seen(written: dict[str, list[Any]], name: str) -> None:
    """What mdl wrote is as its schema says; with any one thing of it wrong it is not."""
    for one in written[name]:
        assert mistakes(name, one) == []
        wrong = list(spoilt(one))
        assert len(wrong) > 30
        assert [what for what, bad in wrong if is_right(name, bad)] == []


def test_what_does_not_go_together(written: dict[str, list[Any]]) -> None:
    """Values that are right by themselves and not together are seen."""
    whole = written["get"][0]
    model = whole["models"][0]
    file = model["files"][1]
    change: dict[str, Any]
    for change in ({"action": "failed"}, {"sha256": None}, {"size": None}, {"action": "planned"}, {"error": ERROR}):
        assert mistakes("get", whole | {"models": [model | {"files": [file | change]}]}), change
    for change in ({"status": "done"}, {"exit_code": 0}, {"error": ERROR}, {"finished_at": STARTED}):
        assert mistakes("jobs", written["jobs"][0] | {"jobs": [JOB | change]}), change
    last = written["event"][-1]
    for change in ({"status": "running"}, {"event": "finished"}, {"error": None}, {"file_index": 0}, {"file_index": 1}):
        assert mistakes("event", last | {"model": None} | change), change


def test_the_events_that_were_seen(written: dict[str, list[Any]]) -> None:
    """The real lines hold starts, finishes, a failure and both ends; a second end is seen, and a missing one."""
    events = written["event"]
    assert {"planned", "started", "finished", "failed"} <= {one["event"] for one in events}
    assert {"running", "file-finished"} <= {one["status"] for one in events}
    ends = [json.dumps(one) for one in events if one["event"] in LAST]
    others = [json.dumps(one) for one in events if one["event"] not in LAST]
    assert events_of("\n".join([*others, ends[0]]))
    for wrong in (others, [*others, *ends], [ends[0], *others]):
        with pytest.raises(AssertionError):
            events_of("\n".join(wrong))


def test_a_later_release_may_add(written: dict[str, list[Any]]) -> None:
    """As it is printed a schema lets more keys pass everywhere but in an error."""
    more = {"one-more": 1}
    whole = written["get"][1]
    model = {**whole["models"][0], **more}
    open_to = Draft202012Validator(schemas.schema("get"))
    assert open_to.is_valid(whole | more | {"models": [model | {"files": [model["files"][0] | more]}]})
    assert not open_to.is_valid(whole | {"error": whole["error"] | more})


# --- mdl help schema ---------------------------------------------------------------------------------------


def test_the_names_and_each_schema_are_printed(shell: Shell) -> None:
    """Without a name the names, one a line; with one its schema, indented and ending with a newline. With --json the
    same is the text of a document."""
    assert tuple(inside(shell, "help", "schema").out.splitlines()) == schemas.names()
    for name in schemas.names():
        ran = inside(shell, "help", "schema", name)
        assert (ran.code, ran.err, ran.out) == (0, "", json.dumps(schemas.schema(name), indent=2) + "\n")
        document = inside(shell, "help", "schema", name, "--json").document
        assert (document["topic"], document["text"]) == (f"schema {name}", ran.out)


@pytest.mark.parametrize("name", ["gett", "shared", "../x", ""])
def test_a_name_that_has_none(shell: Shell, name: str) -> None:
    """An unknown name is 3, with what is near; two names are 2, and so is the former command, which names it."""
    ran = inside(shell, "help", "schema", name, "--json")
    assert (ran.code, ran.out.count("\n"), document_of(ran.out)["error"]["code"]) == (3, 1, "NOTFOUND")
    assert ran.document["error"]["hint"] == ("did you mean get?" if name == "gett" else "'mdl help schema' lists them")
    assert inside(shell, "help", "schema", "get", "list").code == 2
    former = inside(shell, "schema", name)
    assert (former.code, "mdl help schema COMMAND" in former.err) == (2, True)
