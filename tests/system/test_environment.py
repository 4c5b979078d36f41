"""mdl under odd clocks, locales, umasks and memory limits, without a working folder, and after an upgrade."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of, entry_of
from support.clocks import faked
from support.data import DATA, MIB, noise
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, the_job, waits
from support.long import only_long
from support.loopback_hub import LoopbackHub, Repo
from support.namespaces import USER, prefix_of
from support.polling import until
from support.shell import ExitCode, Inside, Shell, done, ended, machine, started, with_environ

import mdl as library
from mdl.net.client import HttpClient

BEYOND_ASCII = "模型-ß.txt"
LONG = os.environ.get("MDL_LONG") == "1"
HANDLER = faults.honest(DATA)


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/f"))


@pytest.mark.fault(134)
@pytest.mark.parametrize(
    "when",
    [
        "2038-02-01 00:00:00",
        pytest.param("1971-01-01 00:00:00", marks=only_long("one clock is enough")),
        pytest.param("2026-10-25 02:30:00", marks=only_long("one clock is enough")),
    ],
)
def test_a_clock_of_another_time(shell: Shell, exit_code: ExitCode, when: str) -> None:
    """After 2038, near the beginning, in the hour that summer time repeats: fetched, known again, listed, cleaned."""
    then = with_environ(shell, **faked(FAKETIME=f"@{when}", TZ="Europe/Berlin"))
    runs = [done(then.run("get", "one", "--json")) for _ in range(2)]
    fetched = [ran.document["bytes_fetched"] for ran in runs]
    assert (fetched, arrived(shell)) == ([len(DATA), 0], True)
    assert exit_code(shell, "get", "one") == 0, "a receipt of another time is believed"
    for words in ((), ("clean", "--older-than", "1d")):
        done(then.run("jobs", *words))


@pytest.mark.fault(138)
def test_a_user_without_a_name(shell: Shell) -> None:
    """Without HOME, name or entry in the list of users: what names its places works, what does not says what to set."""
    prefix = (*prefix_of(USER), "env", "-u", "HOME")
    ran = shell.run("get", "one", "--catalog", "catalog.toml", "--to", str(shell.models), prefix=prefix)
    assert (ran.code, arrived(shell)) == (0, True), ran.err
    nowhere = shell.run("get", "one", prefix=(*prefix, "env", "-u", "MDL_HOME"))
    assert nowhere.code == 2
    assert "--to" in nowhere.err
    assert sorted(os.listdir(shell.home)) == ["catalog.toml", "models"]


@pytest.mark.fault(139)
@pytest.mark.parametrize("locale", ["C", pytest.param("nowhere.ISO-8859-1", marks=only_long("one locale is enough"))])
def test_names_the_terminal_cannot_write(tmp_path: Path, locale: str) -> None:
    """Files with names beyond ASCII get these names, and messages show them escaped."""
    with LoopbackHub([Repo("org/m", {BEYOND_ASCII: b"1"})]) as hub:
        shell = machine(tmp_path, endpoint=hub.url, LC_ALL=locale, PYTHONIOENCODING="ascii")
        for words in (("get", "hf:org/m"), ("get", "hf:org/m", "-n"), ("verify", "hf:org/m"), ("list",)):
            ran = done(shell.run(*words))
            assert (ran.out + ran.err).isascii()
    [file] = [path for path in shell.models.rglob("*.txt") if ".mdl" not in path.parts]
    assert os.fsencode(file.name) == BEYOND_ASCII.encode()


@pytest.mark.fault(139)
def test_names_the_disk_cannot_have(tmp_path: Path) -> None:
    """If Python is told to write names in ASCII it is 7 before the first byte, and how to get them is said."""
    with LoopbackHub([Repo("org/m", {BEYOND_ASCII: b"1"})]) as hub:
        variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        ran = machine(tmp_path, endpoint=hub.url, **variables).run("get", "hf:org/m")
        assert (ran.code, any("/resolve/" in one.path and one.method == "GET" for one in hub.requests)) == (7, False)
    assert "PYTHONUTF8=1" in ran.err


@pytest.mark.fault(141)
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_models_go_by_the_umask(shell: Shell, mask: int) -> None:
    """What is fetched has 0666 without the umask, and the group of a set-group-id folder, as any program's files."""
    shell.models.mkdir(mode=0o2755)
    shell.models.chmod(0o2755)
    prefix = ("sh", "-c", f'umask {mask:03o}; exec "$@"', "sh")
    assert shell.run("get", "one", prefix=prefix).code == 0
    status = (shell.models / "one" / "f.bin").stat()
    assert stat.S_IMODE(status.st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((shell.models / "one").stat().st_mode) == 0o2777 & ~mask


@pytest.mark.fault(142)
def test_a_working_folder_that_is_gone(shell: Shell, tmp_path: Path) -> None:
    """With whole paths it works; what is asked for by a short one is refused in a line."""
    prefix = ("sh", "-c", f'mkdir "{tmp_path}/gone"; cd "{tmp_path}/gone"; rmdir ../gone; exec "$@"', "sh")
    catalog = str(shell.home / "catalog.toml")
    ran = shell.run("get", "one", "--catalog", catalog, prefix=prefix)
    assert (ran.code, arrived(shell)) == (0, True), ran.err
    for words in (("get", "one"), ("get", "one", "--catalog", catalog, "--to", "here"), ("pack", "run")):
        ran = shell.run(*words, prefix=prefix)
        assert ran.code in (2, 3, 7), ran.err
        assert ran.err.startswith("mdl: "), ran.err


_NEWER = "import sys, mdl; mdl.__version__ = '99.0.0'; from mdl.cli.main import run; sys.exit(run(sys.argv[1:]))"


@pytest.mark.fault(144)
def test_upgraded_under_a_paused_job(tmp_path: Path) -> None:
    """A job that one version paused goes on with the next one, and no byte that was claimed is fetched again."""
    gate = Gate()
    with FaultyServer(gate) as server:
        shell = machine(tmp_path, catalog_of(one=f"{server.url}/f"))
        with started(shell, "get", "one") as process:
            waits(shell, gate)
            assert shell.run("jobs", "pause", the_job(shell).id).code == 0
            ended(process, 75)
        gate.opened.set()
        before = server.bytes_sent
        words = [sys.executable, "-c", _NEWER, "jobs", "resume", the_job(shell).id]
        ran = subprocess.run(words, env=shell.environ, cwd=shell.home, capture_output=True, text=True, check=False)
        assert (ran.returncode, arrived(shell)) == (0, True), ran.stderr
        assert server.bytes_sent - before < len(DATA)


@pytest.mark.fault(145)
@pytest.mark.parametrize("fault", [ValueError("oops"), MemoryError(), RecursionError("deep")], ids=repr)
def test_a_fault_in_one_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """An unexpected exception in one of eight workers: the others end, the code is 1, and no file is published."""
    real, lock, calls = HttpClient.open, threading.Lock(), [0]

    def open_response(*what: object, **more: object) -> object:
        with lock:
            calls[0] += 1
            is_mine = calls[0] == 3
        if is_mine:
            raise fault
        return real(*what, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpClient, "open", open_response)
    bench.segments(MIB)
    data = noise(8 * MIB)
    with FaultyServer(faults.honest(data)) as server:
        run = bench.run(pinned(f"{server.url}/f", data), connections=8)
        assert (run.code, run.error["code"], bench.final.exists()) == (1, "INTERNAL", False)
        until(lambda: not [one for one in threading.enumerate() if one.name.startswith(("mdl-worker", "mdl-syncer"))])
        monkeypatch.undo()
        assert bench.run(pinned(f"{server.url}/f", data)).code == 0


@pytest.mark.fault(128)
def test_little_memory(shell: Shell, exit_code: ExitCode) -> None:
    """With less room than it takes mdl says so in a line, and never leaves a wrong file.

    The sizes in between are not tried: if a thread finds no room, CPython 3.11 waits for it without end.
    """
    codes = []
    final = shell.models / "one" / "f.bin"
    for megabytes in (800, 45, 40):
        prefix = ("sh", "-c", f'ulimit -v {megabytes * 1024}; exec "$@"', "sh")
        ran = shell.run("get", "one", "--connections", "2", prefix=prefix)
        codes.append(ran.code)
        assert not final.exists() or final.read_bytes() == DATA
        assert ran.code != 0 or final.exists()
        is_of_python = "object address" in ran.err  # what CPython says if it has no memory for an error of its own
        assert "Traceback" not in ran.err or is_of_python
        shutil.rmtree(shell.models, ignore_errors=True)
    assert codes[0] == 0, codes
    assert codes[-1] != 0, "the control: with no room at all it cannot work"
    assert exit_code(shell, "get", "one") == 0


_NO_MEMORY_LEFT = """
import mdl.cli.main
from mdl.__main__ import main

def run(words):
    raise MemoryError

mdl.cli.main.run = run
main()
"""


@pytest.mark.fault(128)
def test_no_memory_for_the_error_itself() -> None:
    """Without memory to show an error as all errors are shown, it is a line and a hint all the same."""
    done = subprocess.run([sys.executable, "-c", _NO_MEMORY_LEFT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 2)
    assert done.stderr.startswith("mdl: there is not enough memory\n  hint: ")


_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A child's figure is never below that of the process it was forked from, so this one is small."""


@pytest.mark.fault(129)
def test_many_files_in_little_memory(tmp_path: Path) -> None:
    """The most memory it takes does not grow with the number of files: under 150 MB for 10,000 of them."""
    count = 10_000 if LONG else 400
    files = {f"data/{number:05}.txt": b"%d\n" % number for number in range(count)}
    with LoopbackHub([Repo("org/m", files)]) as hub:
        shell = machine(tmp_path, endpoint=hub.url)
        ran = shell.run("get", "hf:org/m", "-q", prefix=(sys.executable, "-c", _MEASURED))
    assert ran.code == 0, ran.err
    most = int(ran.out.split()[-1])
    print(f"{count} files: {most // 1024} MiB")
    assert sum(path.is_file() for path in shell.models.glob("org--m*/data/*")) in (0, count)
    assert most < 150_000


@pytest.mark.fault(154)
def test_a_digest_that_is_wrong(tmp_path: Path, exit_code: ExitCode, capfd: pytest.CaptureFixture[str]) -> None:
    """If the catalog's digest is wrong: 6, fetched at most twice, both digests told, no file and no partial."""
    other = DATA[:-1] + b"?"
    with FaultyServer(faults.honest(DATA)) as server:
        shell = machine(tmp_path, "schema = 1\n" + entry_of("one", f"{server.url}/f", other))
        assert exit_code(shell, "get", "one") == 6
        assert server.bytes_sent <= 2 * len(DATA) + 4096
    said = capfd.readouterr().err
    assert [hashlib.sha256(data).hexdigest()[:8] in said for data in (DATA, other)] == [True, True]
    assert not (shell.models / "one" / "f.bin").exists()


@pytest.mark.fault(466)
@pytest.mark.parametrize("words", ["--help", "get --help", "help", "help schema list"])
def test_a_reader_that_has_left(shell: Shell, words: str) -> None:
    """A help ends like all other output: 141, and not a word."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = shell.command(*words.split())
    ran = subprocess.run(command, env=shell.environ, cwd=shell.home, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("words", "variables", "named"),
    [
        (("--offline",), {}, "--offline"),
        ((), {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ((), {"TRANSFORMERS_OFFLINE": "yes"}, "TRANSFORMERS_OFFLINE"),
        ((), {"MDL_OFFLINE": "1"}, "MDL_OFFLINE"),
    ],
)
def test_what_keeps_mdl_offline_is_named(
    tmp_path: Path, mdl: Inside, words: tuple[str, ...], variables: dict[str, str], named: str
) -> None:
    """What is not here is 8, and the hint names the flag or variable that forbids to ask for it."""
    shell = Shell(tmp_path, extra=variables)
    for command in ("get hf:org/never", "get http://127.0.0.1:9/f.bin", "search word"):
        ran = mdl(shell, *command.split(), *words)
        assert (ran.code, named in ran.err.partition("hint:")[2]) == (8, True), ran.err


@pytest.mark.parametrize(("commit", "told"), [("1fc3fa41\n", " (1fc3fa41)"), ("", ""), (None, " (checkout)")])
def test_the_version_names_the_commit(tmp_path: Path, commit: str | None, told: str) -> None:
    """A wheel says from which commit it was built, and a checkout that it is one."""
    shutil.copytree(Path(library.__file__).parent, tmp_path / "mdl", ignore=shutil.ignore_patterns("__pycache__"))
    if commit is not None:
        (tmp_path / "mdl" / "commit.txt").write_text(commit)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "mdl", "--version"]
    ran = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == f"mdl {library.__version__}{told}\n"


def test_the_version_of_a_checkout_names_its_commit(tmp_path: Path) -> None:
    """A checkout says its commit, with a + once a file was changed; without git it says only that it is one."""
    shutil.copytree(Path(library.__file__).parent, tmp_path / "mdl", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "mdl"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    describe = [*git, "rev-parse", "--short=8", "HEAD"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    command = [sys.executable, "-m", "mdl", "--version"]

    def version(path: str) -> str:
        environ = {"PATH": path, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, check=True)
        return ran.stdout.removeprefix(f"mdl {library.__version__} ").strip()

    assert version(os.environ["PATH"]) == f"(checkout {commit})"
    (tmp_path / "mdl" / "py.typed").write_text("changed")
    assert version(os.environ["PATH"]) == f"(checkout {commit}+)"
    assert version("/nowhere") == "(checkout)"
