"""The library: what `import mdl` offers, as docs/python.md shows it, and what it never does."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.faults import stall_in_body
from support.faulty_server import FaultyServer
from support.homes import own_home
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.packing import make_run
from support.polling import until

import mdl
from mdl.config.settings import client_settings
from mdl.events import Event, Finished, Progressed

ROOT = Path(__file__).parents[2]
TINY = Repo("org/tiny", {"config.json": b"{}", "model.safetensors": b"t" * 5000}, lfs_threshold=1000)
OTHER = Repo("org/other", {"weights.bin": Generated(3_000_000, "other")})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, and a user of it with a home of their own."""
    with LoopbackHub([TINY, OTHER]) as hub:
        own_home(tmp_path, monkeypatch)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.mark.plugins
def test_the_examples_of_the_guide(hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every example of docs/python.md runs as it is written, one after the other, in one namespace."""
    make_run(tmp_path / "runs", "tts")
    text = (ROOT / "docs" / "python.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    said = capfd.readouterr()
    assert len(examples) >= 10
    assert ("stopped: interrupted" in said.out, "hf:org/none" in said.out) == (True, True)
    assert said.err == ""


def test_the_guide_has_every_setting() -> None:
    """docs/python.md names each setting that a client takes, and no other."""
    text = (ROOT / "docs" / "python.md").read_text()
    listed = text.partition("what each one means: ")[2].partition(". mdl reads")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(client_settings())


def test_import_is_light() -> None:
    """`import mdl` loads nothing of mdl but its front door, and none of its dependencies."""
    code = "import sys, mdl; print(*[n for n in sys.modules if n.split('.')[0] in ('mdl', 'httpx', 'typer', 'rich')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "mdl\n"


def test_every_public_name() -> None:
    """Each name that is offered is there, is documented, and stays what it is when the engine is imported. Any other
    one is an AttributeError, as of any module."""
    import mdl.downloader.transfer

    for name in mdl.__all__:
        found = getattr(mdl, name)
        assert name in dir(mdl)
        assert name == "__version__" or found.__doc__, name
        assert not isinstance(found, type(mdl)), name
    with pytest.raises(AttributeError, match="no attribute 'gett'"):
        mdl.gett  # type: ignore[attr-defined] # noqa: B018


def test_a_notebook_sees_public_names_and_short_lines(hub: LoopbackHub, tmp_path: Path) -> None:
    """Tab offers public names alone; what a cell ends with is one short line, and a table of what it holds, with
    the names that people write."""
    assert {name for name in dir(mdl) if not name.startswith("__")} <= {*mdl.__all__, "errors", "events", "reports"}
    client = mdl.Client(home="m")
    plan = client.plan(["hf:org/tiny", "hf:org/other"])
    values = [plan, client.download("hf:org/tiny"), client.verify(), client.inventory(), client.outdated()]
    assert max(len(repr(value)) for value in [client, *values]) < 250
    assert "<p>org/tiny: nothing matches" in client.download("hf:org/tiny", include="*.none")._repr_html_()
    run = make_run(tmp_path)
    packed = mdl.pack(run, tmp_path / "m.zip")
    folder = tmp_path / "imported"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    values += [mdl.checkpoints(run), mdl.plan_pack(run), packed, mdl.unpack(tmp_path / "m.zip", tmp_path / "x")]
    values += [mdl.release(tmp_path / "m.zip", tmp_path / "live"), mdl.releases(tmp_path / "live")]
    values += [client.import_folder(folder, source="hf:org/tiny", dry_run=True)]
    values += [client.delete("hf:org/tiny", dry_run=True)]
    assert max(len(repr(value)) for value in [client, *values]) < 300
    for value in values:
        html = value._repr_html_()
        assert (html.startswith("<table><tr><th>"), "</td>" in html, ">org--tiny" in html) == (True, True, False), html


def test_help_explains_every_argument() -> None:
    """``help`` of a function names and explains each of its arguments."""
    functions = [one for one in (getattr(mdl, name) for name in mdl.__all__) if inspect.isfunction(one)]
    assert len(functions) > 10
    for function in functions:
        for name in inspect.signature(function).parameters:
            assert f"{name}:" in str(function.__doc__) or f"``{name}``" in str(function.__doc__), (function, name)


def test_type_checkers_know_every_public_name() -> None:
    """What is found when it is first used is also imported where only type checkers look, and nothing else is: pyright
    knows ``mdl.events`` after ``import mdl``."""
    tree = ast.parse((ROOT / "mdl" / "__init__.py").read_text())
    [block] = [one for one in tree.body if isinstance(one, ast.If) and isinstance(one.test, ast.Name)]
    imported = [name for one in block.body if isinstance(one, ast.ImportFrom) for name in one.names]
    assert {name.name for name in imported} == {*mdl.__all__, "errors", "events", "reports"} - {"__version__"}
    assert all(name.asname == name.name for name in imported), "else it is no public name"


def test_wrong_arguments(hub: LoopbackHub) -> None:
    """An argument that does not exist is a TypeError, which names the right setting; a wrong value is mdl's own error,
    as is an empty path, of a variable that is not set: it is not the current folder."""
    with pytest.raises(TypeError, match="did you mean 'connections'"):
        mdl.get("hf:org/tiny", conections=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="inculde"):
        mdl.Client().download("hf:org/tiny", inculde="*.json")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'into'"):
        mdl.get("hf:org/tiny", local_dir="m")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"give it to mdl.Client\(max_duration=…\)"):
        mdl.Client().download("hf:org/tiny", max_duration=1)  # type: ignore[call-arg]
    for wrong in (None, Path("org/tiny"), [Path("org/tiny")], b"org/tiny"):
        with pytest.raises(TypeError, match="is not a target"):
            mdl.download(wrong)  # type: ignore[arg-type]
    for named in ({"include": [Path("a")]}, {"exclude": 3}, {"cancel": threading.Event()}):
        with pytest.raises(TypeError, match=r"is not a text|is a mdl\.CancelToken"):
            mdl.get("hf:org/tiny", home="m", **named)
    reasons = {"connections": "0 is not a number from 1 to 64", "retries": "0 is not", "limit_rate": "too slow"}
    for setting, why in reasons.items():
        with pytest.raises(mdl.UsageError, match=f"{setting}: .*{why}"):
            mdl.download(["hf:org/tiny", "hf:org/other"], home="m", **{setting: 0})  # type: ignore[arg-type]
    for empty in ({"home": ""}, {"home": "m", "into": ""}):
        with pytest.raises(mdl.UsageError, match="it is empty"):
            mdl.get("hf:org/tiny", **empty)  # type: ignore[arg-type]


def test_a_hub_that_is_down(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch is asked for anew, so a hub that is down is an error. If all is here, its advice is to go offline; and
    that works whichever hub is set then, tells what is here, and contacts nobody."""
    for target in ("hf:org/tiny", "hf:org/other"):
        mdl.get(target, home="m", include="*.bin" if "other" in target else ())
    before = len(hub.requests)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(mdl.NetworkError) as refused:
        mdl.get("hf:org/tiny", home="m", retries=1)
    assert "--offline" in (refused.value.advice or "")
    with pytest.raises(mdl.NetworkError) as refused:
        mdl.get("hf:org/never", home="m", retries=1)
    assert "--offline" not in (refused.value.advice or "")
    heard: list[Event] = []
    assert (mdl.get("hf:org/tiny", home="m", offline=True, on_event=heard.append) / "config.json").exists()
    assert sum(isinstance(event, Finished) for event in heard) == len(TINY.files)
    assert len(hub.requests) == before


def test_a_rate_is_a_number_or_a_text(hub: LoopbackHub) -> None:
    """What a setting may be, the rate that is changed later may be too."""
    client = mdl.Client(home="m", limit_rate=1_000_000)
    for rate in (5_000_000, "20M", "08:00,2M 22:00,off", None):
        client.limit_rate(rate)
    with pytest.raises(mdl.UsageError):
        client.limit_rate("fast")


def test_a_number_may_be_what_was_computed(hub: LoopbackHub) -> None:
    """Seconds that are left until a deadline, or a third of a line: a number with all its decimals, or in a form with
    an exponent, is a number."""
    path = mdl.get("hf:org/tiny", home="m", max_duration=100 / 3, stall=29.99999867799943, lock_wait=1e-05)
    client = mdl.Client(home="m", limit_rate=10e6 / 3)
    client.limit_rate(20e6 / 3)
    assert client.get("hf:org/tiny") == path
    mdl.pack(make_run(Path("runs"), "tts"), "tts.zip")
    assert mdl.release("tts.zip", "srv", lock_wait=100 / 3).path.is_dir()


def test_settings_come_from_the_environment_too(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not given is read as the command line reads it: variables, then config.toml; an argument wins."""
    config = Path(".config/mdl")
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[defaults]\nhome = "from-config"\n')
    assert mdl.get("hf:org/tiny").parent.name == "from-config"
    monkeypatch.setenv("MDL_HOME", "from-variable")
    assert mdl.get("hf:org/tiny").parent.name == "from-variable"
    assert mdl.get("hf:org/tiny", home="given").parent.name == "given"


def test_nothing_of_the_process_is_touched(hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    """No signal handler, nothing on stdout or stderr, no exit: whatever an operation does, the process is as before."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM]
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook, os.getcwd(), dict(os.environ)
    mdl.download(["hf:org/tiny", "hf:org/none"], home="m", max_duration=60)
    mdl.verify(home="m", repair=True)
    after = [signal.getsignal(number) for number in numbers], sys.unraisablehook, os.getcwd(), dict(os.environ)
    assert after == before
    assert capfd.readouterr() == ("", "")


def test_events_in_the_caller_s_thread(hub: LoopbackHub) -> None:
    """A listener is called in the thread that called the operation, also when that is not the main one."""
    heard: list[tuple[int, Event]] = []

    def work() -> None:
        here = threading.get_ident()
        path = mdl.get("hf:org/other", home="m", on_event=lambda event: heard.append((threading.get_ident(), event)))
        heard.append((here, Finished(file=str(path))))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert len({ident for ident, _ in heard}) == 1
    assert {Progressed, Finished} <= {type(event) for _, event in heard}


def test_cancelled_from_another_thread(hub: LoopbackHub) -> None:
    """A token that is set while a server is silent ends the call at once; what was fetched is gone on with."""
    data = b"x" * 4_000_000
    token, heard = mdl.CancelToken(), list[Event]()

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Progressed) and event.bytes_done and not token.is_set():
            threading.Thread(target=token.set).start()

    with FaultyServer(stall_in_body(data, 2_000_000)) as server:
        url = f"{server.url}/f.bin"
        with pytest.raises(mdl.Cancelled) as stopped:
            mdl.get(url, home="m", cancel=token, on_event=listen, connections=1)
        assert isinstance(stopped.value.so_far, mdl.Report)
        assert not isinstance(stopped.value, Exception)
        with pytest.raises(mdl.Cancelled):
            mdl.get(url, home="m", cancel=token)


def test_a_keyboard_interrupt_stays_one(hub: LoopbackHub) -> None:
    """Ctrl-C in a notebook raises KeyboardInterrupt, and the client can be used again."""

    def interrupt(event: Event) -> None:
        if isinstance(event, Progressed):
            raise KeyboardInterrupt

    with mdl.Client(home="m") as client:
        with pytest.raises(KeyboardInterrupt):
            client.get("hf:org/other", on_event=interrupt)
        assert (client.get("hf:org/other") / "weights.bin").stat().st_size == 3_000_000


def test_a_client_in_many_threads(hub: LoopbackHub) -> None:
    """One client serves several threads at once."""
    client = mdl.Client(home="m")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(client.get, ("hf:org/tiny", "hf:org/other")))
    assert [path.name for path in found] == ["org--tiny", "org--other"]


def test_progress_draws_on_stderr_alone(hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    """``progress=True`` shows lines or bars on stderr; stdout stays empty."""
    mdl.get("hf:org/other", home="m", progress=True)
    said = capfd.readouterr()
    assert said.out == ""
    assert "weights.bin" in said.err


def test_reports_keep_the_errors(hub: LoopbackHub) -> None:
    """A report has the errors themselves, with type and item; the joint one is raised on request. Several that fail for
    one reason are an error of that class, which has the single ones."""
    report = mdl.download(["hf:org/tiny", "hf:org/none"], home="m")
    [(item, error)] = report.failures
    assert (item, type(error)) == ("org--none", mdl.NotFound)
    with pytest.raises(mdl.NotFound, match="hf:org/none: "):
        report.raise_for_errors()
    assert [model.status for model in report.models] == ["present", "missing"]
    with pytest.raises(mdl.NotFound) as caught:
        mdl.download(["hf:org/none", "hf:org/neither"], home="m").raise_for_errors()
    assert [error.item for error in caught.value.errors] == ["hf:org/none", "hf:org/neither"]
    assert caught.value.exit_code == 3


def test_every_report_has_an_exit_code() -> None:
    """Whatever the operation, its report says in the same words whether it failed; those of one file or model are its
    rows."""
    reports = {name: getattr(mdl, name) for name in dir(mdl) if name.endswith("Report")}
    for row in ("FileReport", "ModelReport"):
        del reports[row]
    for report in reports.values():
        assert {"error", "exit_code", "raise_for_errors"} <= set(dir(report)), report
    failed = mdl.LockReport(Path("mdl.lock"), error=mdl.NotFound("gone"))
    assert failed.exit_code == 3
    with pytest.raises(mdl.NotFound):
        failed.raise_for_errors()
    assert mdl.LockReport(Path("mdl.lock")).exit_code == 0


def test_a_deadline(hub: LoopbackHub) -> None:
    """After ``max_duration`` a download ends with Deadline, an ordinary error, with the report so far."""
    with FaultyServer(stall_in_body(b"x" * 100_000, 1000)) as server, pytest.raises(mdl.Deadline) as stopped:
        mdl.get(f"{server.url}/f.bin", home="m", max_duration=0.5)
    assert isinstance(stopped.value, mdl.MdlError)
    assert isinstance(stopped.value.so_far, mdl.Report)


def test_warnings_are_python_s(hub: LoopbackHub) -> None:
    """What may hurt later is a Python warning at the line that called mdl, unless ``on_warning`` takes it."""
    Path("catalog.toml").write_text("schema = 1\n")
    Path("catalog.toml").chmod(0o666)
    with pytest.warns(mdl.MdlWarning, match="everybody may write it") as warned:
        assert mdl.Client().statuses() == []
    assert {one.filename for one in warned} == {__file__}
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mdl.Client(on_warning=said.append).catalog.models == {}
    assert len(said) == 1


def test_one_text_is_not_a_list_of_letters(hub: LoopbackHub, tmp_path: Path) -> None:
    """A single glob or name may be given as a text, any iterable will do, and an empty one is nothing."""
    one: Any
    for number, one in enumerate(["config.json", ["config.json"], ("config.json",), iter(["config.json"])]):
        path = mdl.get("hf:org/tiny", home=f"m{number}", include=one)
        assert [file.name for file in path.iterdir()] == ["config.json"]
    client = mdl.Client(catalog="catalog.toml", home="m")
    client.add("tiny", "hf:org/tiny")
    client.add("other", ["hf:org/other"])
    assert [model.name for model, _ in client.statuses("tin")] == ["tiny"]
    assert (len(client.statuses()), client.statuses([]), client.statuses(status=[])) == (2, [], [])
    assert len(client.statuses(iter(["tiny", "other"]), status=iter(["missing"]))) == 2
    assert client.lock([]).models == ()
    assert [row.name for row in client.lock("tiny").models if row.locked] == ["tiny"]
    assert (client.download([]).models, client.verify([]).models) == ((), {})
    run = make_run(tmp_path / "runs", "tts")
    packed = mdl.pack(run, "x.zip", exclude="config.json")
    assert not [one for one in packed.manifest.files if one.path == "config.json"]
    assert mdl.pack(run, "y.zip", checkpoint=500).manifest.checkpoint == "checkpoint-500"


def test_a_token_for_one_operation(hub: LoopbackHub) -> None:
    """A token given to a call stops that call alone; the client goes on."""
    token = mdl.CancelToken()
    token.set()
    with mdl.Client(home="m") as client:
        with pytest.raises(mdl.Cancelled):
            client.get("hf:org/tiny", cancel=token)
        assert client.get("hf:org/tiny").is_dir()


def test_tokens_of_many_operations(hub: LoopbackHub) -> None:
    """Setting a token while operations come and go stops every one of them."""
    parent, children, done = mdl.CancelToken(), list[mdl.CancelToken](), threading.Event()

    def add() -> None:
        while not done.is_set():
            children.append(mdl.CancelToken(parent))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(add)
        until(lambda: children)
        parent.set()
        done.set()
    assert all(child.is_set() for child in children)


def test_no_signed_url_in_the_log(hub: LoopbackHub, caplog: pytest.LogCaptureFixture) -> None:
    """A program that logs everything sees nothing of mdl's requests: their URLs may be signed."""
    with caplog.at_level("DEBUG"):
        mdl.get("hf:org/other", home="m")
    assert ("http://" in caplog.text, hub.url in caplog.text) == (False, False)
