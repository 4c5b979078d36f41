"""What events mean: each has a description that every printer can use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.cases import each

from mdl.describe import describe, ended_by
from mdl.errors import Cancelled, NotFound
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
from mdl.formatting import spelled

KINDS = {
    Planned: "planned",
    Started: "started",
    Progressed: "progress",
    Retrying: "retrying",
    Rewound: "rewound",
    Verifying: "verifying",
    Finished: "finished",
    Failed: "failed",
    Noticed: "notice",
    Ended: "ended",
}
FILE = ("m", "f")


def test_every_event_is_described() -> None:
    """There is no event without a kind, and each knows what it is about."""
    assert set(KINDS) == set(Event.__subclasses__())
    for event, kind in KINDS.items():
        told = describe(event(*FILE))
        assert (told.kind, told.model, told.file, told.item) == (kind, "m", "f", "m/f")


MIRROR = "attempt 0 in 0.0 s: going on with the mirror"
PLAN = "plan: 2 files, 9 B: 2 B already here, 3 B elsewhere on this disk (2 B of it to copy), 4 B to fetch"


@each(
    ("event", "level", "text", "reason"),
    [
        (Retrying(*FILE, "reset", 2, 65, 4), "WARN", "retry 2 of 4 in 1m 05s: reset", "attempt 2 in 65.0 s: reset"),
        (Retrying(*FILE, "reset", 1, 0.4), "WARN", "retry 1: reset", "attempt 1 in 0.4 s: reset"),
        (Retrying(*FILE, "busy", 0, 5), "WARN", "again in 5 s: busy", "attempt 0 in 5.0 s: busy"),
        (Retrying(*FILE, "going on with the mirror"), "WARN", "going on with the mirror", MIRROR),
        (Rewound(*FILE, 1500, "changed"), "WARN", "1.5 kB discarded: changed", "1500 bytes discarded: changed"),
        (Rewound(*FILE, 1500, "x", 3000), "WARN", "re-fetching 1.5 kB at 3.0 kB", "1500 bytes discarded: x"),
        (Rewound(*FILE, 1500), "WARN", "1.5 kB discarded", "1500 bytes discarded: "),
        (Failed(*FILE, "NET", "503"), "ERROR", "503", "503"),
        (Noticed("m", message="n"), "INFO", "n", "n"),
        (Ended(), "INFO", "", None),
        (Ended(status="paused", code="DEADLINE", message="late"), "WARN", "paused", "late"),
        (Ended(status="failed", code="NET"), "ERROR", "", ""),
        (Finished(*FILE, 10, "linked", "sha256", "clone"), "INFO", "10 B  sha256 ok  cloned", None),
        (Planned("", "", 2, 9, 5, 4, 3, 2), "INFO", PLAN, None),
    ],
)
def test_words(event: Event, level: str, text: str, reason: str | None) -> None:
    """People get a sentence, programs a reason, a log a level."""
    told = describe(event)
    assert (told.level, told.text, told.reason) == (level, text, reason)
    assert (told.error or {"message": None})["message"] == reason


@pytest.mark.parametrize(
    ("error", "status", "code", "exit_code"),
    [
        (NotFound("no", item="m"), "failed", "NOTFOUND", 3),
        (Cancelled(terminated=True), "cancelled", "CANCELLED", 143),
        (KeyboardInterrupt(), "cancelled", "SIGINT", 130),
        (ValueError(), "failed", "INTERNAL", 1),
    ],
)
def test_how_an_exception_ends_a_download(error: BaseException, status: str, code: str, exit_code: int) -> None:
    """Every exception has a last event, with words."""
    end = ended_by(error)
    assert (end.status, end.code, end.exit_code, bool(end.message)) == (status, code, exit_code, True)


def test_a_long_outage_is_told_with_its_end() -> None:
    """From a minute on: what fails, for how long, and until when it is tried, then why; before, the attempt."""
    short = Retrying("m", "f", "no connection to host:1: refused", 2, 4.0, 0, 8.0, 300.0)
    assert describe(short).text == "retry 2 in 4 s: no connection to host:1: refused"
    long = replace(short, idle=61.0)
    assert describe(long).text == "no connection to host:1 for 1m, still trying until 5m: refused"
    hours = replace(long, why="no answer", idle=120.0, patience=3600.0)
    assert describe(hours).text == "no answer for 2m, still trying until 1h"


@pytest.mark.parametrize(
    ("model", "repo", "name"),
    [
        ("org--m", "hf:org/m", "org/m"),
        ("datasets--org--m", "hf:datasets/org/m", "datasets/org/m"),
        ("mine", "hf:org/m", "mine"),
        ("org--m", "", "org--m"),
        ("a--b", "https://a/b", "a--b"),
    ],
)
def test_models_are_spelled_as_people_type_them(model: str, repo: str, name: str) -> None:
    """A repository is ``org/m``; an entry of a catalog has the name that the catalog gives it."""
    assert spelled(model, repo) == name
