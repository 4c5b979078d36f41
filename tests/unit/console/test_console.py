"""What a Console says in lines, in JSON lines and in documents, to people and to programs."""

from __future__ import annotations

import io
import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support.cases import each
from support.console import NAMES, download, made, objects, one, piped, progress, told

from mdl.console import Console, ConsoleOptions
from mdl.console.documents import json_text
from mdl.console.streams import NonBlockingStream
from mdl.console.terminal import drawn_table
from mdl.describe import ended_by
from mdl.errors import Cancelled, Deadline, MdlError, NetworkError, NotFound
from mdl.events import (
    Ended,
    Event,
    Failed,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)
from mdl.formatting import human_bytes, human_duration
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.reports import FailureSummary

PLAN = Planned(files=4, models=(("m", 2000),))
PERSIAN = "مدل‌فارسی"
FIELDS = [
    *("event", "schema", "time", "job", "model", "kind", "repo", "method", "file", "file_index", "file_count"),
    *("file_bytes", "file_total", "bytes_done", "bytes_total", "bytes_per_second", "eta_seconds", "status", "error"),
]


@pytest.mark.fault(137)
@pytest.mark.parametrize("kind", ["auto", "bars"])
def test_a_pipe_gets_plain_lines(kind: Any) -> None:
    """Without a terminal there are lines about everything that matters, and not one escape code; bars never."""
    with piped() as (stderr, reader):
        reader.start()
        stdout = io.StringIO()
        download(Console(ConsoleOptions(kind), {"TERM": "xterm"}, stdout=stdout, stderr=stderr))
    said = reader.data().decode()
    assert ("\x1b" in said, stdout.getvalue()) == (False, "")
    assert [line for line in said.splitlines() if "%" not in line] == [
        "plan: 4 files, 4.0 kB: 4.0 kB to fetch",
        "started   m/x [/] y.bin  resumed at 300 B of 1.0 kB",
        "retrying  m/ESC\\x1b[31m.bin  retry 2 in 4 s: " + "ESC\\x1b[31m.bin is reset " * 20,
        "rewound   m/ESC\\x1b[31m.bin  100 B discarded: ETag changed",
        f"mdl: m/{NAMES[3]}: 503 Service Unavailable",
        "  hint: try later",
        "failed    m  1 of 4 files failed",
        *[line for line in said.splitlines() if line.startswith("1 file failed; 3 files, 3.0 kB")],
    ]
    assert said.splitlines()[-1].endswith(", verified by sha256")


@pytest.mark.fault(137)
@pytest.mark.parametrize(
    ("events", "step", "lines"),
    [
        (
            [progress(done) for done in range(0, 1001, 5)],
            0,
            [
                f"{done // 10:3d}%  {human_bytes(done)} of 1.0 kB  5 B/s  {human_duration((1000 - done) / 5)} left"
                for done in range(100, 1001, 100)
            ],
        ),
        ([progress(450), progress(470), progress(520)], 0, [" 52%  520 B of 1.0 kB  5 B/s  1m 36s left"]),
        ([progress(at, 0) for at in range(1, 91)], 1, [f"{at} B of ?  5 B/s" for at in (30, 60, 90)]),
    ],
    ids=["every tenth", "not what was kept", "every 30 seconds"],
)
def test_progress_is_a_line_now_and_then(events: list[Event], step: float, lines: list[str]) -> None:
    """Progress is told once at every tenth of the whole, but not the tenths that were there before. A slow download is
    told every 30 seconds, also when its size is not known."""
    assert told(events, step=step) == lines


def test_all_bytes_are_told_before_the_finish() -> None:
    """The line about the last bytes of a file comes before that of its finish, although the check began between the
    last look at the whole and the finish; the next look adds nothing."""
    events = [
        Planned(files=1, bytes_total=10**9, bytes_to_fetch=10**9, models=(("m", 1),)),
        Started("m", "f", 1, 1, 10**9),
        progress(10**8, 10**9, one("f", 10**8, 10**9)),
        progress(6 * 10**8, 10**9, one("f", 6 * 10**8, 10**9)),
        Verifying("m", "f", 9 * 10**8, 10**9),
        fetched("f", size=10**9),
        progress(10**9, 10**9),
    ]
    lines = told(events)
    assert [line.split()[0] for line in lines] == ["plan:", "started", "60%", "100%", "finished", "1"]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Noticed("m", message="gone\nsoon"), "m: gone\\nsoon"),
        (Verifying("m", "f", 0, 9_000_000_000), "checking  m/f  9.0 GB"),
        (Planned("", "", 1, 9, 4, 5), "plan: 1 file, 9 B: 4 B already here, 5 B to fetch"),
        (Ended(status="paused"), "paused"),
        (
            Retrying("hf:a/b@" + "c" * 40, "", "reset", 1, 2.0, 4),
            "retrying  hf:a/b@ccccccc  retry 1 of 4 in 2 s: reset",
        ),
    ],
)
def test_wording(event: Event, line: str) -> None:
    """Each event is one line, and a commit is cut."""
    assert told([event]) == [line]


def fetched(file: str, verified: str = "sha256", size: int = 10, model: str = "m") -> Finished:
    return Finished(model, file, size, "fetched", verified)


KEPT = [Finished("m", f"{number}", 10, "kept", "sha256") for number in range(2000)]
HUGE = Started("m", "huge", total=10**9), fetched("huge", size=10**9)
CHECKS = ("sha256", "git-sha1", "size", "none")
STORIES: dict[str, tuple[list[Event], list[str]]] = {
    "nothing to do": ([PLAN, *KEPT], ["nothing to do: 2,000 files, 20.0 kB are here"]),
    "one file, of which no digest is known": (
        [replace(PLAN, models=(("m", 1),)), Finished("m", "f", 10, "kept", "none")],
        ["nothing to do: 1 file, 10 B is here (unverified)"],
    ),
    "many small files": (
        [replace(PLAN, models=(("m", 3),)), *(one for name in "abc" for one in (Started("m", name), fetched(name)))],
        ["finished  m  3 files  30 B  sha256 ok", "3 files, 30 B in 5.0 s, 6 B/s, verified by sha256"],
    ),
    "each hash, and none": (
        [replace(PLAN, models=(("m", 4),)), *[Finished("m", check, 10, "linked", check) for check in CHECKS]],
        [
            "finished  m  4 files  40 B  sha256 and git-sha1 ok (1 checked only by size, 1 unverified)",
            "4 files, 40 B from this disk in 5.0 s, verified by sha256 and git-sha1"
            " (1 checked only by size, 1 unverified)",
        ],
    ),
    "a model of one file": (
        [replace(PLAN, models=(("m", 1),)), Started("m", "f"), Finished("m", "f", 10, "linked", "sha256", "clone")],
        ["finished  m/f  10 B  sha256 ok  cloned", "1 file, 10 B cloned in 1.0 s, verified by sha256"],
    ),
    "what was here is told with the news": (
        [replace(PLAN, models=(("m", 2),)), KEPT[0], Started("m", "f"), fetched("f")],
        [
            "finished  m  2 files  20 B  sha256 ok  1 already here",
            "2 files, 20 B, 10 B of it fetched in 1.0 s, 10 B/s, verified by sha256",
        ],
    ),
    "a large file": (
        [replace(PLAN, models=(("m", 2),)), *HUGE, fetched("f")],
        [
            "started   m/huge  1.0 GB",
            "finished  m/huge  1.0 GB  sha256 ok",
            "finished  m  2 files  1.0 GB  sha256 ok",
            "2 files, 1.0 GB in 2.0 s, 500.0 MB/s, verified by sha256",
        ],
    ),
    "a model that failed as a whole": (
        [replace(PLAN, models=(("m", 2),)), Failed("n", "", "AUTH", "no"), *KEPT[:2]],
        ["mdl: n: no", "finished  m  2 files  20 B  sha256 ok  already here", "1 model failed; 2 files, 20 B are here"],
    ),
    "a model that nobody announced": ([fetched("a"), fetched("b")], ["finished  m  2 files  20 B  sha256 ok"]),
}


@each("story", STORIES)
def test_a_model_is_one_line(story: str) -> None:
    """However many files a model has, one line tells of it when its last file is over, and one of the whole in the end.
    What was not verified is never called ok."""
    events, lines = STORIES[story]
    said = told(events, step=1.0)
    assert [line for line in said if not line.startswith("plan: ")][: len(lines)] == lines


def test_verbose_tells_of_each_file() -> None:
    """With -v every file has its line, with its host, and the summary says over how many connections they came."""
    host = replace(fetched("a"), source="cdn.example")
    look = replace(progress(5), connections=3)
    said = told([Started("m", "a", total=10, host="hub.example"), look, host, fetched("b")], verbose=1, step=1.0)
    assert said[:2] == ["started   m/a  10 B  from hub.example", "finished  m/a  10 B  sha256 ok  from cdn.example"]
    assert said[-1].endswith(", from cdn.example over at most 3 connections")


@pytest.mark.parametrize("kind", ["lines", "none"])
def test_a_failure_is_said_once(kind: Any) -> None:
    """The line of the file that failed is the error: the command's end repeats neither it nor a hint."""
    console, _, err, _ = made(kind)
    with console.watch() as tell:
        tell(Failed("org--name", "", "NET", "503", "try later", item="hf:org/name"))
    for item in ("hf:org/name", "org--name", "https://h.example/name"):
        console.error(NetworkError("503", item=item, hint="try later"))
    assert err.getvalue() == "mdl: hf:org/name: 503\n  hint: try later\n"
    console.error(NetworkError("503", item="another"))
    assert err.getvalue().count("503") == 2


def test_an_error_is_the_last_word() -> None:
    """When the last file has failed, no progress is told after its error and the hint."""
    failed = [Failed("m", "f", "NET", "503", "try later"), replace(progress(1000), files=())]
    assert told([Started("m", "f", total=1000), progress(100), *failed])[-1] == "  hint: try later"


def test_a_hint_is_said_once() -> None:
    """A thousand files that fail for one reason have one message and one hint; another reason has its own."""
    failed = [Failed("m", f"{number:03}", "NET", "503", "later") for number in range(998)]
    others = [Failed("m", name, "NET", "no route", "later") for name in "ab"] + [
        Failed("m", "c", "AUTH", "no", "never")
    ]
    lines = told([replace(PLAN, models=(("m", 1001),)), replace(progress(0), files=()), *failed, *others])
    assert [line for line in lines if line.startswith(("mdl:", "  hint"))] == [
        "mdl: m: 998 of 1,001 files: 503 (000, 001, 002 and 995 more)",
        "  hint: later",
        "mdl: m: 2 of 1,001 files: no route (a, b)",
        "mdl: m/c: no",
        "  hint: never",
    ]


@pytest.mark.parametrize("kind", ["lines", "none", "bars"])
def test_failures_of_one_reason_are_said_once(kind: Any) -> None:
    """Whatever shows the download, in whatever order they come, and though the command ends with the same failures."""
    console, _, err, _ = made(kind)
    failed = [Failed("m", name, "NET", "503", "later") for name in "dbca"]
    with console.watch() as tell:
        for event in (Planned(files=9, models=(("m", 9),)), *failed):
            tell(event)
    forged = FailureSummary("m", "503", ("a\nmdl: all is well", "b"))
    assert forged.message == r"2 files: 503 (a\nmdl: all is well, b)"
    summary = FailureSummary("m", "503", ("a", "b", "c", "d"), 9, "later")
    console.error(NetworkError(summary.message, item=summary.item, hint="later"))
    assert err.getvalue().count("503") == 1
    assert "m: 4 of 9 files: 503 (a, b, c and 1 more)" in err.getvalue()


@pytest.mark.parametrize("end", ["paused", "cancelled"])
def test_failures_are_said_when_it_is_stopped(end: str) -> None:
    """What failed before a stop is told, though other files of its model are still to come."""
    lines = told([replace(PLAN, models=(("m", 9),)), Failed("m", "f", "NET", "503"), Ended(status=end)])
    assert "mdl: m/f: 503" in lines


@pytest.mark.parametrize("options", [{"quiet": True}, {"progress": "none"}])
def test_quiet_tells_only_failures(options: dict[str, Any]) -> None:
    """Quiet says nothing but what failed, and says that once although the command ends with the same error."""
    console, _, err, _ = made(**options)
    with console.watch() as tell:
        for event in (Planned(files=1), Started("m", "f"), progress(500), Noticed(message="x"), Finished("m", "g", 1)):
            tell(event)
        tell(Failed("m", "f", "NET", "503", "try later"))
    console.error(NetworkError("503", item="f"))
    assert err.getvalue() == "mdl: m/f: 503\n  hint: try later\n"
    console.error(NetworkError("503", item="another"))
    assert err.getvalue().endswith(
        "mdl: another: 503\n  hint: run the same command again later; what was fetched is kept\n"
    )


# --- JSON lines --------------------------------------------------------------------------------------------


def test_every_object_has_every_field() -> None:
    """Each event becomes one object with exactly the agreed fields and its own name."""
    events = [
        (Planned(files=2, bytes_total=1000, bytes_kept=100), "planned", "running"),
        (Started("m", "f", 1, 2, 900, 100), "started", "running"),
        (progress(500, 1000, one("f", 400, 900)), "progress", "running"),
        (Retrying("m", "f", "reset", 2, 4.0), "retrying", "retrying"),
        (Rewound("m", "f", 50, "changed"), "rewound", "running"),
        (Verifying("m", "f", 900, 900), "verifying", "running"),
        (Finished("m", "f", 900), "progress", "file-finished"),
        (Failed("m", "g", "NET", "503"), "progress", "file-failed"),
        (Ended(status="failed", code="NET", message="503"), "failed", "failed"),
    ]
    console, _, err, clock = made("json")
    with console.watch("job-7", method="hub") as tell:
        for event, _, _ in events:
            clock.now += 1
            tell(event)
    seen = objects(err.getvalue().splitlines())
    assert [(found["event"], found["status"]) for found in seen] == [told[1:] for told in events]
    for found in seen:
        assert list(found) == FIELDS
        assert (found["schema"], found["job"], found["method"]) == ("mdl.event/1", "job-7", "hub")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])
    looked = seen[2]
    assert (looked["file"], looked["file_bytes"], looked["file_total"], looked["file_index"]) == ("f", 400, 900, 1)
    assert (looked["bytes_done"], looked["bytes_total"], looked["file_count"]) == (500, 1000, 2)
    assert seen[-1]["error"] == {"code": "NET", "message": "503", "hint": None, "item": None}


@pytest.mark.no_cover
def test_at_most_ten_objects_a_second() -> None:
    """However fast files start, move and finish, no second holds more than ten objects, and bytes go on being told."""
    console, _, err, clock = made("json")
    stamps: list[tuple[float, str]] = []
    with console.watch() as tell:
        for step in range(600):
            clock.now += 0.01
            for event in (
                Started("m", f"{step}", step, 600, 10),
                progress(10 * step, 6000),
                Verifying("m", f"{step}", 10, 10),
            ):
                tell(event)
            tell(Finished("m", f"{step}", 10))
            stamps += [(clock.now, line) for line in err.getvalue().splitlines()[len(stamps) :]]
    times = [at for at, _ in stamps]
    assert all(later - earlier > 1 for earlier, later in zip(times, times[10:], strict=False))
    done = [found["bytes_done"] for found in objects(err.getvalue().splitlines())]
    assert len(set(done)) > 20
    assert done == sorted(done)


def test_trouble_is_never_dropped() -> None:
    """A retry, a rewind, a failed file and a notice are told even in a second that is full."""
    routine: list[Event] = [Finished("m", f"{step}", 1) for step in range(30)]
    failed = Failed("m", "f", "NET", "503")
    trouble: list[Event] = [Retrying("m", "f"), Rewound("m", "f"), failed, Noticed("m", message="n")]
    found = objects(told([*routine, *trouble * 5], "json"))
    statuses = [(one["event"], one["status"]) for one in found]
    wanted = ("retrying", "retrying"), ("rewound", "running"), ("progress", "file-failed"), ("progress", "notice")
    assert [statuses.count(status) for status in wanted] == [5] * 4


@pytest.mark.no_cover
@pytest.mark.fault(278)
@pytest.mark.parametrize("count", [1, 8, 1000])
def test_every_finish_is_told(count: int) -> None:
    """However many files finish within a second, each is told once, before the last object, and at most ten at once."""
    console, _, err, _ = made("json")
    with console.watch() as tell:
        for step in range(count):
            tell(Finished("m", f"{step}", 10))
        assert err.getvalue().count("\n") <= 10
    seen = objects(err.getvalue().splitlines())
    assert [one["file"] for one in seen if one["status"] == "file-finished"] == [f"{step}" for step in range(count)]
    assert (len(seen), seen[-1]["event"]) == (count + 1, "finished")


@each(
    ("error", "last", "code"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "cancelled", "SIGINT"),
        (Cancelled(terminated=True), "cancelled", "CANCELLED"),
        (Deadline("out of time"), "paused", "DEADLINE"),
        (NotFound("404", item="m", hint="look"), "failed", "NOTFOUND"),
        (ValueError("oh"), "failed", "INTERNAL"),
    ],
)
@each("told_by_hand", [True, False])
def test_exactly_one_last_object(error: BaseException | None, last: str, code: str | None, told_by_hand: bool) -> None:
    """However a download ends, its end is told once and last, also when events and words come after it."""
    console, _, err, _ = made("json")
    with suppress(BaseException), console.watch() as tell:
        tell(progress(1))
        if told_by_hand:
            tell(ended_by(error) if error else Ended())
            tell(Ended())
            tell(progress(2))
        if error:
            raise error
    console.warn("late")
    if isinstance(error, MdlError):
        console.error(error)
    seen = objects(err.getvalue().splitlines())
    assert [one["event"] for one in seen] == ["progress", last]
    assert (seen[-1]["error"] or {"code": None})["code"] == code


def test_the_error_of_the_last_object() -> None:
    """A watch left without a word after a file failed ends as failed, with that file's error; the error of a command
    that never began is the one last object."""
    _, last = objects(told([Failed("m", "f", "HASH", "wrong", "look at the source")], "json"))
    assert (last["event"], last["error"]["item"]) == ("failed", "m/f")
    console, _, err, _ = made("json")
    console.note("reading")
    for _ in range(2):
        console.error(NotFound("no such model", item="x", hint="mdl list"))
    notice, last = objects(err.getvalue().splitlines())
    assert (notice["event"], notice["status"], last["event"], last["status"]) == ("progress", "notice", *["failed"] * 2)
    assert last["error"] == {"code": "NOTFOUND", "message": "no such model", "hint": "mdl list", "item": "x"}


def test_json_lines_hold_no_secret_and_no_odd_number() -> None:
    """Signed URLs and tokens are taken out, endless and undefined numbers become null, and all of it is ASCII."""
    events = [
        Progressed(bytes_done=1, bytes_per_second=float("inf")),
        Retrying(PERSIAN, "hf_model0123456.bin", "https://u:p@h.example/x?sig=1 with sekret-token", 1, 1.0),
    ]
    lines = told(events, "json", environ={"HF_TOKEN": "sekret-token"})
    text = "".join(lines)
    assert (text.isascii(), "sekret" in text, "sig=1" in text) == (True, False, False)
    first, second, _ = objects(lines)
    assert (first["bytes_per_second"], first["eta_seconds"], first["bytes_total"]) == (0.0, None, None)
    assert (second["model"], second["file"]) == (PERSIAN, "hf_model0123456.bin")


# --- errors, notes, documents ------------------------------------------------------------------------------


@each(
    ("error", "text"),
    [
        (MdlError("no", item="m/f", hint="do"), "mdl: m/f: no\n  hint: do\n"),
        (MdlError("no"), "mdl: no\n"),
        (MdlError("2 mistakes\na: 1\nb: 2", item="c.toml"), "mdl: c.toml: 2 mistakes\n  a: 1\n  b: 2\n"),
        (MdlError("no", item="a\nmdl: b: forged"), "mdl: a\\nmdl: b: forged: no\n"),
        (MdlError("\x1b]52;c;x\x07", item="\u202eevil"), "mdl: \\u202eevil: \\x1b]52;c;x\\x07\n"),
        (MdlError("https://u:p@h.example/x?sig=1"), "mdl: https://h.example/x?…\n"),
    ],
)
def test_error_lines(error: MdlError, text: str) -> None:
    """An error is one line that names item and reason, then the hint; nothing in it can forge or hide a line."""
    console, _, err, _ = made()
    console.error(error)
    assert err.getvalue() == text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "n\nmdl: warning: w\n"),
        ({"quiet": True}, "mdl: warning: w\n"),
        ({"verbose": 1}, "n\nmdl: warning: w\ndebug: d\n"),
    ],
)
def test_how_much_is_said(options: dict[str, Any], said: str) -> None:
    """Quiet drops notes but no warnings; details come only when asked for; none of it goes to stdout."""
    console, out, err, _ = made(**options)
    for say, text in ((console.note, "n"), (console.warn, "w"), (console.debug, "d")):
        say(text)
    assert (out.getvalue(), err.getvalue()) == ("", said)


def test_all_of_stderr_is_redacted() -> None:
    """A secret given later is taken out of notes, warnings, details and errors alike."""
    console, _, err, _ = made(verbose=1)
    console.secrets.add("open-sesame")
    for say in (console.note, console.warn, console.debug):
        say("try open-sesame")
    console.error(MdlError("open-sesame", item="open-sesame", hint="open-sesame"))
    assert "sesame" not in err.getvalue()
    assert err.getvalue().count("***") == 6


def test_document() -> None:
    """The JSON document is one line with what every command says first, and the only thing on stdout."""
    console, out, _, _ = made(json_output=True, environ={"HF_TOKEN": "sekret-token"})
    console.data("/models/m")
    console.table(["A"], [["b"]])
    error = NotFound("see https://h.example/x?sig=1 for sekret-token, Bearer x1", item="m", hint=None)
    model = {"url": "https://u:p@h.example/a?b", "path": Path("/m"), "title": PERSIAN + "\x9b"}
    console.document("get", {"models": [model]}, exit_code=3, error=error)
    assert out.getvalue().count("\n") == 1
    assert "\x9b" not in out.getvalue()
    assert PERSIAN in out.getvalue()
    assert json.loads(out.getvalue()) == {
        "schema": "mdl.get/1",
        "ok": False,
        "exit_code": 3,
        "error": {
            "code": "NOTFOUND",
            "message": "see https://h.example/x?… for ***, Bearer ***",
            "hint": "'mdl list' shows what there is",
            "item": "m",
        },
        "models": [{"url": "https://h.example/a?…", "path": "/m", "title": PERSIAN + "\x9b"}],
    }


def test_errors_in_a_document() -> None:
    """Reports hold exceptions; a document has their facts, without what is secret in them."""
    error = NetworkError("https://h.example/x?sig=1 with Bearer x1", item="m/f", hint="try later")
    found = json.loads(json_text([{"error": Cancelled(), "files": ({"error": error}, {"error": None})}]))
    facts = {"code": "NET", "exit_code": 5, "message": "https://h.example/x?… with Bearer ***"}
    facts |= {"hint": "try later", "item": "m/f"}
    assert found == [{"error": Cancelled().to_dict(), "files": [{"error": facts}, {"error": None}]}]


def test_records_in_a_document() -> None:
    """A record becomes an object with its fields, also within others; one that has a text of its own is that text."""
    found = json.loads(json_text({"rows": (one("f", 1),), "url": Finished("m", source="https://h/x?sig=1")}))
    assert (found["rows"][0]["file"], found["rows"][0]["done"]) == ("f", 1)
    assert found["url"]["source"] == "https://h/x?…"
    digest = Digest("sha256", "0" * 64)
    assert json.loads(json_text([digest, RelPath("a/b")])) == [str(digest), "a/b"]


def test_table_in_a_pipe() -> None:
    """A table in a pipe is plain lines with nothing cut, and what a terminal would obey is escaped."""
    console, out, _, _ = made(environ={"COLUMNS": "40"})
    console.table(["NAME", "TITLE"], [["x [/] y", "E\x1b[31m"], ["m", "long " * 60]])
    assert out.getvalue() == f"NAME     TITLE\nx [/] y  E\\x1b[31m\nm        {('long ' * 60).strip()}\n"


def test_colors_of_a_table() -> None:
    """Headers are bold and statuses have their colours; every cell stands in its column, to the right if all are
    numbers."""
    stream = Mock(spec=NonBlockingStream, size=(40, 10), has_colors=True)
    drawn = drawn_table(stream, ("STATUS", "SIZE"), [("present", "1.0 GB"), ("missing", "12 B")])
    assert re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines() == [
        "STATUS     SIZE",
        "present  1.0 GB",
        "missing    12 B",
    ]
    assert drawn.startswith("\x1b[1mSTATUS ")
    assert ("\x1b[32mpresent\x1b[0m" in drawn, "\x1b[2mmissing\x1b[0m" in drawn) == (True, True)
