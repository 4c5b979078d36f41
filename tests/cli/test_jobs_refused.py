"""Jobs that are over: what is listed, kept and cleaned; no such job, no place for records, no home."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.data import SMALL
from support.jobs import arrived, log_of, put_job, records_of, secrets_in, state_of, the_job
from support.shell import ExitCode, Inside, Run, Shell, with_environ
from support.terminal import Terminal

from mdl.cli.session import invocation_of
from mdl.disk.process import ProcessId, hostname
from mdl.formatting import utc_now
from mdl.jobs.job import Invocation, Job, finishers
from mdl.jobs.records import JobFile

TOKEN = "hf_" + "s3cr3t" * 5


@pytest.fixture
def job(shell: Shell, run: Run) -> Job:
    """A job that is done."""
    run("get one")
    return the_job(shell)


@pytest.mark.fault(156)
@pytest.mark.parametrize("words", ["show x", "log x", "pause x", "pause x y", "resume x", "cancel x"])
def test_a_job_that_is_not_there(shell: Shell, run: Run, words: str) -> None:
    """An unknown id is 3, named on stderr and in the document, which has no jobs."""
    ran = run(f"jobs {words} --json", 3)
    error = ran.document["error"]
    assert (ran.document["jobs"], error["code"], error["item"]) == ([], "NOTFOUND", "x")
    assert all(f"mdl: {name}: no such job\n" in ran.err for name in words.split()[1:])
    assert not state_of(shell).exists()


@pytest.mark.fault(156)
def test_a_finished_job(shell: Shell, run: Run, job: Job) -> None:
    """It is listed, shown and has a log; pause, cancel and resume are 2 and change nothing; clean removes it."""
    for words in ("pause", "cancel", "resume", "resume --detach"):
        why = f"{job.id}: there is nothing to {words.split()[0]}: its status is done"
        assert why in run(f"jobs {words} {job.id}", 2).err
    assert the_job(shell) == job
    shown = run(f"jobs show {job.id} --json").document["jobs"][0]
    assert (shown["id"], shown["models"], shown["log"]) == (job.id, ["one"], job.log)
    assert (shown["bytes_done"], shown["bytes_total"], shown["file"]) == (len(SMALL), len(SMALL), None)
    raw, log = (run(words).out.splitlines() for words in (f"jobs log --raw {job.id}", "jobs log"))
    assert raw == log_of(shell).splitlines()
    assert [line.split()[2] for line in (raw[0], raw[-1])] == ["planned", "ended"]
    assert [line.split()[1] for line in (log[1], log[-1])] == ["planned", "ended"]
    assert not [line for line in log if re.search("job=|pid=|command=|repo=", line)]
    assert "no job ended more than 30d ago; 1 stays" in run("jobs clean").err
    assert [one["id"] for one in run("jobs clean --older-than 0 --json").document["jobs"]] == [job.id]
    assert list((state_of(shell) / "jobs").iterdir()) == []
    assert arrived(shell, SMALL)


def test_one_that_fails_hinders_no_other(shell: Shell, run: Run, job: Job) -> None:
    """Of several jobs to cancel each is done by itself: an unknown one is 3, one that is over 2, together 10."""
    put_job(records_of(shell), replace(job, id="0000-rest", status="paused", exit_code=75))
    document = run(f"jobs cancel nobody {job.id} 0000 --json", 10).document
    shown = [(one["id"], one["status"], one["exit_code"]) for one in document["jobs"]]
    assert (shown, document["error"]["code"]) == ([("0000-rest", "cancelled", 143)], "PARTIAL")
    lines = run(f"jobs cancel nobody {job.id} --progress json", 10).err.splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["error"]["code"]) == ("failed", "PARTIAL")


@pytest.mark.parametrize(("kind", "code"), [("plain", None), ("withheld", 2), ("unknown", 12)])
def test_what_can_be_done_next(shell: Shell, run: Run, job: Job, kind: str, code: int | None) -> None:
    """A job is shown as a shell would take it again. 'resume' is advised only if that is possible; else it is refused,
    2 if a secret is missing."""
    words = ("get", "--include=*.bin", "--into=a b", "--", "it's") if kind != "unknown" else ()
    again = replace(job.again, words=words, withheld=kind == "withheld")
    put_job(records_of(shell), replace(job, status="failed", exit_code=5, again=again))
    facts = dict(line.split(": ", 1) for line in run(f"jobs show {job.id}").out.splitlines() if ": " in line)
    assert ("resume" in facts["next"]) == (kind == "plain")
    assert shlex.split(facts.get("command", "").strip()) == [word for word in words if word != "--"]
    assert ("mdl jobs resume" in run(f"jobs pause {job.id}", 2).err) == (kind == "plain")
    if code:
        run(f"jobs resume {job.id}", code)


def test_a_repair_that_had_nothing_to_do(run: Run, job: Job) -> None:
    """A job that is done had no more bytes than it has; how many an unfinished one has may not be known."""
    run("verify --repair")
    assert "bytes: 0 B of 0 B" in " ".join(run("jobs show").out.split())
    assert " 0 B 0 B " in " ".join(run("jobs").out.split())


@pytest.mark.parametrize(("columns", "date"), [(80, "2025"), (120, "2025-01-01")])
def test_a_job_a_line(
    shell: Shell, exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch, columns: int, date: str
) -> None:
    """On a terminal no job is folded, and its speed or the reason of its end is on its line, cut to what is left; a
    wide one has the whole date."""
    host, owner = hostname(), str(ProcessId.current())
    old = Job("0101-abcd", "get", ("bert-fa",), owner, host, Invocation(), "2025-01-01T00:00:00.000Z")
    gone = {"code": "NET", "message": "host answered 503: " + "very long " * 9, "hint": None, "item": None}
    old = replace(old, status="failed", finished_at="2025-01-01T01:01:01.000Z", exit_code=5, error=gone)
    fast = {"bytes_done": 123_400_000_000, "bytes_total": 987_600_000_000, "bytes_per_second": 98.7e6}
    new = replace(old, id="0102-abcd", status="running", started_at=utc_now(), **fast, eta_seconds=2.5 * 3600)
    for job in (old, new):
        put_job(records_of(shell), job)
    seen = Terminal(columns)
    monkeypatch.setattr(sys, "stdout", seen.file)
    assert exit_code(with_environ(shell, TERM="xterm", NO_COLOR="1"), "jobs") == 0
    lines = [line for line in re.sub(r"\x1b\[[01]m", "", seen.text()).splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["ID", "0102-abcd", "0101-abcd"]
    assert re.search(r"  (get )?bert-fa +98.7 MB/s, 2h 30m left *$", lines[1])
    assert re.search(rf" {date}.* 1h 01m  (get )?bert-fa +network: host answ.*…$", lines[2])
    assert max(len(line.rstrip()) for line in lines) <= columns


@pytest.mark.parametrize(
    ("columns", "heads"),
    [
        (40, ["ID", "STATUS", "DONE", "WHAT"]),
        (60, ["ID", "STATUS", "DONE", "BEGAN", "WHAT", "DETAILS"]),
        (80, ["ID", "STATUS", "DONE", "BEGAN", "TOOK", "WHAT", "DETAILS"]),
    ],
)
def test_a_narrow_terminal_has_fewer_columns(
    shell: Shell, exit_code: ExitCode, monkeypatch: pytest.MonkeyPatch, columns: int, heads: list[str]
) -> None:
    """Columns are left out before a number is broken, and each job is one line with its status and what was typed; the
    last line counts the jobs."""
    again = Invocation(("get", "--force", "--", "org/bert"), "/")
    started_at = "2025-01-01T00:00:00.000Z"
    job = Job("", "get", ("org--bert",), str(ProcessId.current()), hostname(), again, started_at, bytes_total=9)
    running = records_of(shell).create(replace(job, bytes_done=3, bytes_per_second=12.3e6))
    done = replace(job, status="done", exit_code=0, bytes_done=9, finished_at="2025-01-02T01:00:00.000Z")
    done = records_of(shell).create(done)
    seen = Terminal(columns)
    monkeypatch.setattr(sys, "stdout", seen.file)
    monkeypatch.setattr(sys, "stderr", seen.file)
    assert exit_code(with_environ(shell, TERM="xterm", NO_COLOR="1"), "jobs") == 0
    lines = [line for line in re.sub(r"\x1b\[[01]m", "", seen.text()).splitlines() if line.strip()]
    assert lines[0].split() == heads
    assert sorted(line.split()[0] for line in lines[1:3]) == sorted([running.id, done.id])
    assert all("org/bert" in line for line in lines[1:3])
    assert lines[3].startswith("2 jobs: ")
    assert max(len(line.rstrip()) for line in lines) <= columns


def test_a_later_job_finished_it(shell: Shell, run: Run, job: Job) -> None:
    """A job that was interrupted is over once a later one of the same words brought it, and says which; one of another
    folder, of other words or of one more model is not, nor one that does not say what it was asked for."""
    stopped = replace(job, status="paused", started_at="2025-01-01T00:00:00.000Z", finished_at=None, exit_code=75)
    again = job.again
    more = {
        "0000-same": stopped,
        "0000-away": replace(stopped, again=replace(again, folder="/elsewhere")),
        "0000-part": replace(stopped, again=replace(again, words=(*again.words, "--include=*.json"))),
        "0000-more": replace(stopped, models=(*stopped.models, "two")),
        "0000-late": replace(stopped, started_at="2999-01-01T00:00:00.000Z"),
        "0000-held": replace(stopped, again=replace(again, withheld=True)),
        "0000-next": replace(job, started_at="2998-01-01T00:00:00.000Z", finished_at="2998-01-01T00:00:01.000Z"),
    }
    for name, one in more.items():
        put_job(records_of(shell), replace(one, id=name))
    assert set(finishers(records_of(shell).all())) == {"0000-same"}
    [line] = [line for line in run("jobs").out.splitlines() if line.startswith("0000-same")]
    assert line.endswith(f"{job.id} finished it")  # the first that did, not one that found it here


def test_a_paused_job_that_is_cancelled(shell: Shell, run: Run, job: Job) -> None:
    """It is no longer said to be paused, in the table, its page and its document."""
    paused = {"code": "PAUSED", "message": "paused", "hint": None, "item": None}
    put_job(records_of(shell), replace(job, id="0000-idle", status="paused", exit_code=75, error=paused))
    run("jobs cancel 0000-idle")
    assert "error:     cancelled\n" in run("jobs show 0000-idle").out
    [line] = [line for line in run("jobs").out.splitlines() if line.startswith("0000-idle")]
    assert (line.split()[1], line.split()[-1]) == ("cancelled", "-")
    assert run("jobs show 0000-idle --json").document["jobs"][0]["error"]["message"] == "cancelled"


def test_what_is_listed(shell: Shell, run: Run, job: Job) -> None:
    """The newest first; --status narrows, and a misspelt one is 2. What can go on is listed however old; of those that
    are over the latest twenty, with --all, which also 'mdl jobs' takes, and as JSON every one."""
    for number in range(30):
        one = replace(job, id=f"0000-n{number:02}", started_at=f"2025-01-01T00:00:{number:02}.000Z")
        put_job(records_of(shell), replace(one, status="paused", exit_code=75) if number < 3 else one)

    def listed(words: str) -> list[str]:
        return [line.split()[0] for line in run(f"jobs {words}").out.splitlines()[1:]]

    paused = ["0000-n02", "0000-n01", "0000-n00"]
    assert listed("") == [job.id, *(f"0000-n{number:02}" for number in range(29, 10, -1)), *paused]
    assert len(listed("list --all")) == len(listed("--all")) == len(run("jobs --json").document["jobs"]) == 31
    assert listed("list --status paused") == paused
    run("jobs list --status runing", 2)


@pytest.mark.fault(140)
@pytest.mark.parametrize("where", ["a file", "no folder", "jobs is a file"])
def test_no_place_for_records(shell: Shell, mdl: Inside, where: str) -> None:
    """If no record can be written, not even by root, get says so and works; --detach is refused (7), and there are no
    jobs. A state folder that is no folder is one warning, though the log is missing too."""
    if where == "no folder":
        shell = with_environ(shell, XDG_STATE_HOME="/proc/no/such/folder")
    else:
        place = state_of(shell) / "jobs" if where == "jobs is a file" else state_of(shell)
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
    ran = mdl(shell, "get", "one")
    assert (ran.code, ran.out, arrived(shell, SMALL)) == (0, f"{shell.models / 'one'}\n", True)
    assert ran.err.count("mdl: warning: this job is not recorded: ") == 1
    assert where != "a file" or ran.err.count("mdl: warning: ") == 1
    codes = {"get one --detach": 7, "jobs": 0, "jobs show 0": 3}
    assert {words: mdl(shell, *words.split()).code for words in codes} == codes


def test_a_record_that_is_lost_on_the_way(shell: Shell, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for records from the second write on is one warning, and the download is right."""
    original = JobFile.append
    written: list[object] = []

    def full(self: JobFile, *facts: Mapping[str, Any]) -> None:
        written.append(facts)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.job")
        original(self, *facts)

    monkeypatch.setattr(JobFile, "append", full)
    assert run("get one").err.count("not recorded") == 1
    assert arrived(shell, SMALL)


@dataclass(frozen=True)
class Homeless(Shell):
    @property
    def environ(self) -> dict[str, str]:
        return {key: value for key, value in super().environ.items() if key != "HOME"}


def test_nobody_at_home(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOME and without an entry of the user's get works with a folder named, and says what is not kept."""
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    homeless = Homeless(shell.home)
    err = mdl(homeless, "get", "one").err
    assert err.count("mdl: warning: ") == err.count("this user has no home folder") == 1
    codes = {"get one --detach": 2, "jobs": 2, "prefetch --all": 0}
    assert {words: mdl(homeless, *words.split()).code for words in codes} == codes
    assert sorted(path.name for path in shell.home.iterdir()) == ["catalog.toml", "models"]
    assert arrived(shell, SMALL)


def test_old_jobs_go_by_themselves(shell: Shell, run: Run, job: Job) -> None:
    """Records that were over for thirty days are gone after the next download; a paused one stays."""
    for name, status in (("0000-done", "done"), ("0000-rest", "paused")):
        put_job(records_of(shell), replace(job, id=name, status=status))
        old = time.time() - 31 * 86400
        os.utime(state_of(shell) / "jobs" / f"{name}.job", (old, old))
    run("get one")
    assert {one.id for one in records_of(shell).all()} == {job.id, the_job(shell).id, "0000-rest"}


def test_what_is_kept_of_a_command_line(shell: Shell, run: Run) -> None:
    """Flags, lists, switches and folders are kept as they were said; how it was shown and what was not said is not."""
    words = (
        "download one --json -q --include *.bin --include=f* --to a/b --connections 3 --force --catalog catalog.toml"
    )
    variables = {"MDL_RETRIES": "2", "HF_HUB_OFFLINE": "0"}
    run(f"{words} --progress=none --no-color -vy", **variables, HF_TOKEN=TOKEN, OTHER="x")
    kept = the_job(shell).again
    command, *options, dashes, target = kept.words
    assert (command, dashes, target, kept.folder, kept.withheld) == ("download", "--", "one", str(shell.home), False)
    said = {"--include=*.bin", "--include=f*", "--to=a/b", "--connections=3", "--force", "--catalog=catalog.toml"}
    assert (set(options), len(options)) == (said, len(said))
    assert kept.variables == variables | {"HF_ENDPOINT": shell.endpoint, "MDL_HOME": str(shell.models)}


@pytest.mark.parametrize("how", ["--on-complete", "MDL_ON_COMPLETE"])
def test_a_token_in_a_hook_is_written_nowhere(shell: Shell, exit_code: ExitCode, how: str) -> None:
    """A secret that mdl knows is in no record, whether it came in a flag or in a variable."""
    command = f"true {TOKEN}"
    words, extra = (["--on-complete", command], {}) if how.startswith("--") else ([], {how: command})
    assert exit_code(with_environ(shell, HF_TOKEN=TOKEN, **extra), "get", "one", *words) == 0
    assert secrets_in(shell.home, TOKEN) == set()


def test_variables_of_others_that_are_kept() -> None:
    """Those that say from which hub, into which folders, and whether anybody is asked; none of what may be sent."""
    kept = dict.fromkeys(
        ("HF_ENDPOINT", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "TRANSFORMERS_OFFLINE"), "x"
    )
    others = dict.fromkeys(("HF_TOKEN", "AWS_PROFILE", "HTTPS_PROXY", "PATH", "XDG_STATE_HOME"), "x")
    assert invocation_of(("get", "--", "one"), kept | others).variables == kept


def test_variables_that_are_not_kept() -> None:
    """Those of flags that only say how it was shown are left out, as the flags themselves are; one with a secret is
    left out too, and then the job cannot be resumed."""
    shown = dict.fromkeys(("MDL_DETACH", "MDL_JSON", "MDL_QUIET", "MDL_YES", "MDL_VERBOSE", "MDL_NO_COLOR"), "1")
    shown |= {"MDL_PROGRESS": "json", "MDL_JOB": "x"}
    secret = {"MDL_ON_COMPLETE": "curl https://chat.example/hook?token=5ignatur3"}
    for variables, withheld in ((shown, False), (secret, True)):
        kept = invocation_of(("get", "--", "one"), {**variables, "MDL_HOME": "/m"})
        assert (kept.variables, kept.withheld) == ({"MDL_HOME": "/m"}, withheld)
