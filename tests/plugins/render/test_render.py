"""mdl render: the manifests as they are printed, what is refused, and their shell parts run for real."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from support.data import SMALL
from support.faults import honest, stall_in_body
from support.faulty_server import FaultyServer
from support.manifests import ODD, rendering
from support.polling import until
from support.shell import Inside, Shell, done, machine, settings, with_environ

import mdl as library
from mdl.errors import EXIT_CODES, NOT_WORTH_RETRYING, WORTH_RETRYING
from mdl.plugins.render import manifest
from mdl.plugins.render.this_machine import variables_of

GOLDEN = Path(__file__).parent / "corpus"
CALLS = {
    "job.yaml": ["k8s", "both", "--image", "registry.example/mdl:1", "--claim", "shared", "--secret", "hub/key"],
    "daemonset.yaml": ["k8s", "both", "--shape", "daemonset", "--to", "/mnt/nvme/models", "--limit-rate", "1G"],
    "get.sbatch": ["slurm", "both", ODD, "--to", "/shared/my models"],
    "systemd.txt": [
        "systemd",
        "both",
        ODD,
        "--limit-rate",
        "20M",
        "--to",
        "/srv/100% mine",
        "--mdl",
        "/usr/local/bin/mdl",
    ],
    "mdl-prefetch.timer": ["systemd", "plain", "--unit", "timer", "--window", "00:00-00:00"],
    "crontab": ["cron", "both", ODD, "--mail-to", "ops@example.com", "--mdl", "/opt/mdl/bin/mdl"],
}


@pytest.fixture
def shell(tmp_path: Path, mdl: Inside) -> Shell:
    shell = rendering(tmp_path / "home", "http://cdn.example/f.bin")
    done(mdl(shell, "lock", "--offline"))
    return Shell(shell.home, extra={"MDL_HOME": ""})


@pytest.mark.fault(588)
@pytest.mark.parametrize("name", CALLS)
def test_as_it_was(name: str, shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each manifest is what it was, character for character; the files are written anew with MDL_LONG=golden."""
    monkeypatch.delenv("MDL_HOME", raising=False)
    text = done(mdl(shell, "render", *CALLS[name])).out.replace(str(shell.home), "/home/me")
    if os.environ.get("MDL_LONG") == "golden":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_one_table_of_exit_codes(shell: Shell, mdl: Inside) -> None:
    """What is tried again and what is not is the same everywhere: the codes of mdl.errors, each of which has a name."""
    assert {*WORTH_RETRYING} & {*NOT_WORTH_RETRYING} == set()
    assert {*WORTH_RETRYING, *NOT_WORTH_RETRYING} <= EXIT_CODES.keys()
    job = _documents(done(mdl(shell, "render", "k8s", "plain")).out)["Job"]
    rules = {one["action"]: one["onExitCodes"]["values"] for one in _rules(job) if "onExitCodes" in one}
    assert rules["FailIndex"] == [*NOT_WORTH_RETRYING]
    assert sorted(rules["Ignore"] + rules["Count"]) == sorted(WORTH_RETRYING)
    script = done(mdl(shell, "render", "slurm", "plain")).out
    assert [*WORTH_RETRYING] == [5, 9, 75, 143]
    assert "\n5|9|75) again=1 ;;\n143) again=$time_is_over ;;\n" in script
    service = done(mdl(shell, "render", "systemd", "plain")).out
    assert f"RestartPreventExitStatus={' '.join(map(str, NOT_WORTH_RETRYING))}\n" in service


def _documents(text: str) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def _rules(job: dict[str, Any]) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = job["spec"]["podFailurePolicy"]["rules"]
    return rules


def test_what_is_refused(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """Without a lock a pod has nothing to go by (8), and without names there is nothing to bring (8); wrong names of
    Kubernetes, wrong hours and control characters are 2, an unknown model 3. Nothing is printed to stdout then."""
    bare = rendering(tmp_path / "bare", "http://cdn.example/f.bin")
    cases: list[tuple[Shell, str, int]] = [
        (bare, "k8s plain", 8),
        (bare, "cron", 8),
        (shell, "k8s none", 3),
        (shell, "k8s plain --claim 'a: b'", 2),
        (shell, "k8s plain --secret 'x}'", 2),
        (shell, "k8s plain --image 'a b'", 2),
        (shell, "cron plain --window 99", 2),
        (shell, "cron plain --limit-rate x", 2),
        (shell, "cron plain --schedule '5 * * * *\n* * * * * id'", 2),
        (shell, "slurm plain --to '/a\nb'", 2),
        *(
            (shell, f"{kind} plain --limit-rate '08:00,2M\n22:00,off'", 2)
            for kind in ("cron", "k8s", "slurm", "systemd")
        ),
        *((shell, f"{kind} plain --mdl '/opt/mdl a\x1bb'", 2) for kind in ("cron", "slurm", "systemd")),
        (shell, "k8s plain --image 'a\nb'", 2),
        (shell, "cron plain --mail-to 'a\nb'", 2),
        (shell, "systemd plain --to models", 2),
        (shell, "systemd plain --mdl bin/mdl", 2),
        (shell, "cron plain --mdl 'python3 -m mdl'", 2),
        (shell, "cron plain --mdl 'mdl; id'", 2),
        (shell, "cron plain --schedule '5 * * *'", 2),
        (shell, """cron plain --to "/it's" --mail-to '"'\"'\"""", 2),
        (shell, f"cron {'plain ' * 160}", 2),
        (shell, f"cron plain --to /{'x' * 999}", 2),
        (shell, "", 2),
    ]
    for where, words, code in cases:
        ran = done(mdl(where, "render", *shlex.split(words)), code)
        assert (ran.out, "hint:" in ran.err) == ("", True), words
    assert "--locked" not in done(mdl(bare, "render", "cron", "plain")).out
    assert f"MDL_HOME={bare.home}/models\n" in done(mdl(bare, "render", "cron", "plain", "--to", "models")).out


@pytest.mark.fault(481)
@pytest.mark.parametrize(
    ("window", "crontab", "calendar", "delay"),
    [
        ("22:00-06:00", "5 0-5,22-23 * * *", "*-*-* 00..05,22..23:05:00", 10),
        ("22:30-22:50", "30 22 * * *", "*-*-* 22:30:00", 10),
        ("23:59-00:04", "59 23 * * *", "*-*-* 23:59:00", 2),
        ("21:00-22:09", "5 21-22 * * *", "*-*-* 21..22:05:00", 2),
        ("00:00-00:00", "5 * * * *", "*-*-* *:05:00", 10),
    ],
)
def test_runs_begin_within_the_window(
    window: str, crontab: str, calendar: str, delay: int, shell: Shell, mdl: Inside
) -> None:
    """However short the window is, there is a time at which a run begins, and it is not delayed out of the window."""
    assert f"\n{crontab} /" in done(mdl(shell, "render", "cron", "plain", "--window", window)).out
    timer = done(mdl(shell, "render", "systemd", "plain", "--unit", "timer", "--window", window)).out
    assert f"OnCalendar={calendar}\nRandomizedDelaySec={delay}min\n" in timer


@pytest.mark.fault(482)
def test_how_mdl_is_called(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """--mdl may have several words; without it cron is given the mdl of this PATH. A service that needs the homes is
    allowed to read them, and one without a catalog of its own is told of none."""
    several = ("--mdl", "/opt/my\\ tools/uv run mdl")
    for name, words in (("cron", "'/opt/my tools/uv' run mdl"), ("systemd", '"/opt/my tools/uv" run mdl')):
        assert f"{words} prefetch" in done(mdl(shell, "render", name, "plain", *several)).out
    assert "\n'/opt/my tools/uv' run mdl get" in done(mdl(shell, "render", "slurm", "plain", *several)).out
    (tmp_path / "mdl").write_text("#!/bin/sh\n")
    (tmp_path / "mdl").chmod(0o755)
    assert (
        f" {tmp_path}/mdl prefetch" in done(mdl(with_environ(shell, PATH=str(tmp_path)), "render", "cron", "plain")).out
    )
    at_home = ("systemd", "plain", "--to", "/home/me/models")
    assert "\nProtectHome=read-only\n" in done(mdl(shell, "render", *at_home)).out
    in_tmp = done(mdl(shell, "render", "systemd", "plain", "--to", "/var/tmp/models")).out
    assert ("\nPrivateTmp=no\n" in in_tmp, "\nProtectHome=yes\n" in in_tmp) == (True, True)
    (shell.home / "catalog.toml").unlink()
    shipped = done(mdl(shell, "render", "systemd", "bert-fa")).out
    assert "catalog.toml" not in shipped


@pytest.mark.parametrize("name", ["k8s", "slurm", "systemd"])
@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:8080", "http://localhost:8080", "https://hub.example", "http://[x"]
)
def test_an_endpoint_on_this_machine(endpoint: str, name: str, shell: Shell, mdl: Inside) -> None:
    """Pods and nodes are other machines, where a loopback address is another one: one warning says so."""
    ran = done(mdl(with_environ(shell, HF_ENDPOINT=endpoint), "render", name, "plain"))
    is_told = name != "systemd" and ":8080" in endpoint
    assert (f"HF_ENDPOINT is {endpoint}: where this manifest runs" in ran.err) == is_told
    assert endpoint in ran.out


@pytest.fixture
def for_everybody() -> Iterator[Path]:
    """A folder that every user may enter. Those of pytest do not stay open: each new session closes them again."""
    with TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


def test_a_program_that_the_target_cannot_run(shell: Shell, mdl: Inside, for_everybody: Path) -> None:
    """A program that was named, and that a service, a node or this user's cron cannot run, is one warning that says
    why; the manifest is as it was asked for, and the exit code 0."""
    closed = for_everybody / "closed"
    for place in (closed / "bin", for_everybody / "open"):
        place.mkdir(parents=True)
        (place / "mdl").write_text("#!/bin/sh\n")
        (place / "mdl").chmod(0o755)
    (for_everybody / "open" / "through").symlink_to(closed / "bin" / "mdl")
    (for_everybody / "open" / "script").write_text(f"#!{closed}/bin/mdl\n")
    (for_everybody / "open" / "script").chmod(0o755)
    (for_everybody / "open" / "data").write_text("")
    closed.chmod(0o700)
    enter = f"only its owner may enter {closed}"
    told = {
        f"systemd plain --mdl {closed}/bin/mdl": enter,
        f"systemd plain --mdl {for_everybody}/open/through": enter,
        f"systemd plain --mdl {for_everybody}/open/script": enter,
        f"systemd plain --mdl {for_everybody}/open/data": "others may not run",
        f"systemd plain --mdl {for_everybody}/none/mdl": "is not there",
        f"cron plain --mdl {for_everybody}/none/mdl": "which you cannot run",
        f"cron plain --mdl {for_everybody}/open/data": "which you cannot run",
        "slurm plain --mdl bin/mdl": "in the folder in which sbatch is called",
        f"systemd plain --mdl {for_everybody}/open/mdl": "",
        f"cron plain --mdl {for_everybody}/open/mdl": "",
        "slurm plain --mdl /opt/mdl/bin/mdl": "",
    }
    there = with_environ(shell, HF_ENDPOINT="https://hub.example")
    for words, why in told.items():
        ran = done(mdl(there, "render", *words.split()))
        assert (ran.err.count("mdl: warning:"), why in ran.err) == (bool(why), True), (words, ran.err)
        assert words.split()[-1] in ran.out
        assert ("python3 -m venv /opt/mdl" in ran.out) == (bool(why) and words.startswith("systemd"))


def test_no_secret_is_in_it(shell: Shell, mdl: Inside) -> None:
    """A token of the environment is nowhere: a pod gets it by reference. All that is locked is meant without a name;
    --json has the files."""
    secret = with_environ(shell, HF_TOKEN="hf_" + "x" * 30)
    for name in ("k8s", "slurm", "systemd", "cron"):
        ran = done(mdl(secret, "render", name, "--json"))
        assert "hf_x" not in ran.out + ran.err
        assert all(word in ran.document["text"] for word in ("plain", "odd"))
    hidden = done(mdl(with_environ(shell, HF_ENDPOINT="http://me:pw@127.0.0.1:9"), "render", "cron"))
    assert ("\n#HF_ENDPOINT=\n" in hidden.out, "pw" in hidden.out) == (True, False)
    assert "HF_ENDPOINT holds a password, so the manifest leaves it out" in hidden.err
    assert [file["name"] for file in done(mdl(shell, "render", "systemd", "--json")).document["files"]] == [
        "mdl-prefetch.service",
        "mdl-prefetch.timer",
    ]


CONTRACT = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS", "HTTP_PROXY", "HTTPS_PROXY"),
    *("ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_PROFILE", "AWS_REGION", "AWS_CONFIG_FILE"),
    *("XDG_DATA_HOME", "XDG_CACHE_HOME", "MDL_CONNECTIONS", "MDL_LIMIT_RATE", "MDL_VIA", "MDL_LOG_FILE"),
)
"""Variables that mdl reads and whose values are no secrets."""
CREDENTIALS = ("HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "RUNPOD_API_KEY", "CIVITAI_TOKEN")


@pytest.mark.parametrize("name", ["cron", "slurm", "systemd", "k8s"])
def test_what_the_shell_has_is_a_comment(name: str, shell: Shell, mdl: Inside) -> None:
    """Each variable that mdl reads and this shell has is a comment of the manifest, with its value unless that may be
    a secret. Variables of other programs are not in it, and what runs is the same as without them."""
    values = {variable: f"value-of-{variable}" for variable in CONTRACT}
    values |= {"HTTPS_PROXY": "http://proxy:3128", "MDL_CONNECTIONS": "3", "MDL_LIMIT_RATE": "3M", "MDL_VIA": "http"}
    values |= {variable: f"S3CRET-{variable}" for variable in CREDENTIALS}
    values |= {"HTTP_PROXY": "http://me:S3CRET@proxy:3128", "SSL_CERT_DIR": "/a\n/S3CRET"}
    settings(shell, '[hosts."civitai.com"]\ntoken_env = "CIVITAI_TOKEN"\n')
    plain = done(mdl(shell, "render", name, "plain")).out
    ran = done(mdl(with_environ(shell, **values, OTHER="S3CRET"), "render", name, "plain"))
    assert ("S3CRET" not in ran.out + ran.err, "OTHER" not in ran.out) == (True, True)
    comments = [line.strip() for line in ran.out.splitlines() if line.strip().startswith("#")]
    for variable in (*CONTRACT, *CREDENTIALS):
        [line] = [line for line in comments if re.search(rf"(?<![A-Z_]){variable}[=,]", line)]
        is_hidden = variable in (*CREDENTIALS, "HTTP_PROXY", "SSL_CERT_DIR")
        assert (values[variable] in line) == (not is_hidden), line
    assert any("HF_TOKEN_PATH" in line for line in comments) == (name != "k8s")
    assert _without_comments(ran.out) == _without_comments(plain)


def _without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.strip().startswith("#")]


def test_variables_are_those_of_the_page() -> None:
    """The variables of other programs that a manifest names are those that the page of the configuration lists."""
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    listed = set(re.findall(r"`([A-Z_0-9]+)`", page.partition("These variables of other")[2]))
    small = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    asked = variables_of(dict.fromkeys([*listed, *small], "x"))
    assert asked.keys() == (listed | small) - {"HOME", "TERM", "COLUMNS", "PAGER"}


@pytest.mark.parametrize("query", ["?version=2024-01-01", "?auth=S3CRET-1&version=1", "?S3CRET-1", "?download=true#x"])
def test_what_is_printed_is_what_was_made(query: str, mdl: Inside, tmp_path: Path) -> None:
    """Catalog and lock of the manifest are those that were made for it, byte for byte: with them `get --locked` brings
    the model. A query that may be a secret is nowhere, and its file is named."""
    with FaultyServer(honest(SMALL)) as server:
        shell = rendering(tmp_path / "home", f"{server.url}/f.bin{query}")
        done(mdl(shell, "lock", "--offline"))
        printed = done(mdl(shell, "render", "k8s", "plain"))
        told = done(mdl(shell, "render", "k8s", "plain", "--json"))
        is_cut = "S3CRET" in query
        assert told.document["text"] == printed.out
        assert told.document["queries_left_out"] == (["plain/f.bin"] if is_cut else [])
        assert "S3CRET" not in printed.out + printed.err + told.out + told.err
        assert [line for line in printed.err.splitlines() if "plain/f.bin" in line and "left out" in line] == (
            [printed.err.splitlines()[0]] if is_cut else []
        )
        texts = _documents(printed.out)["ConfigMap"]["data"]
        there = machine(tmp_path / "there", texts["catalog.toml"])
        (there.home / "mdl.lock").write_text(texts["mdl.lock"])
        done(mdl(there, "get", "--locked", "plain"))
        assert server.requests[-1].target == f"/f.bin{query.partition('#')[0] if 'S3CRET' not in query else ''}" + (
            "?version=1" if "auth" in query else ""
        )


def test_a_document_with_a_secret_is_not_printed(mdl: Inside, tmp_path: Path) -> None:
    """The value of a token in a path cannot be taken out of a document: 2, and nothing is printed."""
    shell = rendering(tmp_path / "home", "http://127.0.0.1:10/S3CRET-of-the-hub/f.bin")
    done(mdl(shell, "lock", "--offline"))
    secret = with_environ(shell, HF_TOKEN="S3CRET-of-the-hub")
    for words in (["render", "k8s", "plain"], ["render", "k8s", "plain", "--json"], ["export", "plain"]):
        ran = done(mdl(secret, *words), 2)
        assert "S3CRET" not in ran.out + ran.err


# --- the shell parts run ----------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with mdl, and a scontrol that writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    texts = {"mdl": f'exec {shlex.join(Shell(tmp_path).command())} "$@"', "scontrol": f'echo "$@" >> {tmp_path}/asked'}
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, programs: Path) -> Run:
    """Runs a command line in an environment with nothing but these programs in front."""

    def call(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
        path = f"{programs}:{os.environ['PATH']}"
        environ = {"HOME": str(tmp_path), "PATH": path, **environ}
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def served(tmp_path: Path, url: str, mdl: Inside) -> Shell:
    shell = rendering(tmp_path / "home", url)
    done(mdl(shell, "lock", "--offline"))
    return shell


@pytest.mark.fault(588)
def test_slurm_script(tmp_path: Path, mdl: Inside, run: Run, programs: Path) -> None:
    """The batch script passes bash -n and brings the models. It ends with mdl's exit code, and asks Slurm to run it
    again after those codes that are worth it, but not for ever. scancel may end mdl before the script is told: an mdl
    that was stopped without a USR1 was cancelled."""
    with FaultyServer(honest(SMALL)) as server:
        shell = served(tmp_path, f"{server.url}/f.bin", mdl)
        script, asked = tmp_path / "get.sbatch", tmp_path / "asked"
        script.write_text(done(mdl(shell, "render", "slurm", "both", "--to", str(tmp_path / "to"))).out)
        assert run(["bash", "-n", str(script)]).returncode == 0
        ran = run(["bash", str(script)], SLURM_JOB_ID="7")
        assert (ran.returncode, (tmp_path / "to" / ODD / "f.bin").read_bytes()) == (0, SMALL), ran.stderr
        assert not asked.exists()
    (programs / "mdl").write_text("#!/bin/sh\nexit $CODE\n")
    for code in EXIT_CODES:
        assert run(["bash", str(script)], SLURM_JOB_ID="7", CODE=str(code)).returncode == code
        assert asked.exists() is (code in WORTH_RETRYING and code != 143), code
        asked.unlink(missing_ok=True)
    run(["bash", str(script)], SLURM_JOB_ID="7", CODE="5", SLURM_RESTART_COUNT="20")
    assert not asked.exists()


@pytest.mark.fault(480)
@pytest.mark.parametrize(("how", "asked"), [(signal.SIGUSR1, "requeue 8\n"), (signal.SIGTERM, "")])
def test_slurm_script_is_stopped(tmp_path: Path, mdl: Inside, programs: Path, how: signal.Signals, asked: str) -> None:
    """Slurm's USR1 before the end of the time ends mdl with 143, and the job is to run again; the TERM of scancel ends
    it as well, and the job is not to come back."""
    with FaultyServer(stall_in_body(SMALL, 10)) as server:
        shell = served(tmp_path, f"{server.url}/f.bin", mdl)
        script = done(mdl(shell, "render", "slurm", "plain", "--to", str(tmp_path / "to"))).out
        environ = {"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "8"}
        with subprocess.Popen(["bash", "-c", script], env=environ, stderr=subprocess.DEVNULL) as process:
            until(lambda: server.requests)
            process.send_signal(how)
            assert process.wait(60) == 143
    requests = tmp_path / "asked"
    assert (requests.read_text() if requests.exists() else "") == asked


def _command(container: dict[str, Any], root: str = "") -> list[str]:
    """The command of a container as Kubernetes starts it, with the volume below ``root``."""
    return [word.replace("/models", f"{root}/models").replace("$$(", "$(") for word in container["command"]]


def _in_pod(container: dict[str, Any], folder: Path, documents: dict[str, Any]) -> dict[str, str]:
    """The variables of a container, with its mounts in a folder."""
    (folder / "etc/mdl").mkdir(parents=True)
    for name, text in documents["ConfigMap"]["data"].items():
        (folder / "etc/mdl" / name).write_text(text)
    return {
        one["name"]: f"{folder}{one['value']}" if one["value"].startswith("/") else one["value"]
        for one in container["env"]
        if "value" in one
    }


@pytest.mark.fault(588)
def test_kubernetes_job(tmp_path: Path, mdl: Inside, run: Run) -> None:
    """Each index of the Job brings its own model, with the catalog and the lock of the ConfigMap alone."""
    with FaultyServer(honest(SMALL)) as server:
        shell = served(tmp_path, f"{server.url}/f.bin", mdl)
        documents = _documents(done(mdl(shell, "render", "k8s", "both")).out)
        [container] = documents["Job"]["spec"]["template"]["spec"]["containers"]
        environ = _in_pod(container, tmp_path / "pod", documents)
        (tmp_path / "pod/tmp").mkdir()
        ran = run(_command(container), **environ, JOB_COMPLETION_INDEX="1")
        assert ran.returncode == 0, ran.stderr
        [found] = [one for one in (tmp_path / "pod/models").iterdir() if one.name != ".mdl"]
        assert (found.name, (found / "f.bin").read_bytes()) == (ODD, SMALL)


def test_kubernetes_daemon_set(tmp_path: Path, mdl: Inside, run: Run) -> None:
    """The init container brings everything and leaves the ready-file that the probe looks for; the other container
    ends at once when it is told to."""
    with FaultyServer(honest(SMALL)) as server:
        shell = served(tmp_path, f"{server.url}/f.bin", mdl)
        documents = _documents(done(mdl(shell, "render", "k8s", "both", "--shape", "daemonset")).out)
        spec = documents["DaemonSet"]["spec"]["template"]["spec"]
        [first], [other] = spec["initContainers"], spec["containers"]
        environ, root = _in_pod(first, tmp_path / "pod", documents), str(tmp_path / "pod")
        (tmp_path / "pod/tmp").mkdir()
        probe = _command(other["readinessProbe"]["exec"], root)
        assert run(probe).returncode == 1
        ran = run(_command(first, root), **environ)
        assert ran.returncode == 0, ran.stderr
        assert run(probe).returncode == 0
        assert json.loads(Path(root, "models/mdl.ready").read_bytes())["models"].keys() == {"plain", ODD}
    with subprocess.Popen(_command(other), start_new_session=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: children.read_text())
        process.terminate()
        assert process.wait(20) == 0
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.fault(588)
def test_crontab_line(tmp_path: Path, mdl: Inside, run: Run, programs: Path) -> None:
    """The line does what cron does with it, a % escaped: it brings the models and prints nothing."""
    with FaultyServer(honest(SMALL)) as server:
        shell = served(tmp_path, f"{server.url}/f.bin", mdl)
        words = ["both", "--to", str(tmp_path / "to"), "--window", "00:00-00:00", "--mdl", str(programs / "mdl")]
        text = done(mdl(shell, "render", "cron", *words, "--schedule", "@daily")).out
        *settings, line = [one for one in text.splitlines() if not one.startswith("#")]
        environ = {name: value.strip("\"'") for name, _, value in (one.partition("=") for one in settings)}
        ran = run(["sh", "-c", line.removeprefix("@daily ").replace("\\%", "%")], **environ)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert (tmp_path / "to" / ODD / "f.bin").read_bytes() == SMALL


def test_mdl_that_is_not_on_the_path(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an mdl on the PATH, cron is given the one that was started by its path. If there is none, and none for
    all users either, one warning says so."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mdl").write_text("#!/bin/sh\n")
    (tmp_path / "own" / "mdl").chmod(0o755)
    (tmp_path / "mdl").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    client = library.Client(catalog=shell.home / "catalog.toml")
    monkeypatch.setattr(sys, "argv", ["own/mdl"])
    found = manifest(client, "cron", ["plain"])
    assert (f" {tmp_path}/own/mdl prefetch" in found.text, found.warnings) == (True, ())
    if Path("/usr/local/bin/mdl").exists():
        return
    for argv in ("mdl", "./mdl", "/none/mdl", "own/mdl.py"):
        monkeypatch.setattr(sys, "argv", [argv])
        for name in ("cron", "systemd"):
            found = manifest(client, name, ["plain"])
            [warning] = found.warnings
            assert " starts /usr/local/bin/mdl, which is not there;" in warning, (argv, name)
            assert "/usr/local/bin/mdl prefetch" in found.text


def test_a_program_that_no_service_can_run(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """The unit starts the mdl that runs if any user can run it; otherwise the one for all users, and one warning names
    both. The manifest and the exit code are the same, and the unit has the line that installs it."""
    tmp_path.chmod(0o700)
    own = tmp_path / "own"
    own.mkdir()
    (own / "mdl").write_text("#!/bin/sh\n")
    (own / "mdl").chmod(0o755)
    ran = done(mdl(with_environ(shell, PATH=str(own)), "render", "systemd", "plain"))
    if not Path("/usr/local/bin/mdl").exists():
        assert f"no service can run {own}/mdl" in ran.err
        assert ran.err.count("/usr/local/bin/mdl") == 1
    assert "\nExecStart=/usr/local/bin/mdl prefetch" in ran.out
    assert "ln -sf /opt/mdl/bin/mdl /usr/local/bin/mdl  # in a checkout of mdl\n" in ran.out
    for place, is_seen in (("/dev/shm", True), ("/var/tmp", False)):  # a service has a /var/tmp of its own
        with TemporaryDirectory(dir=place) as folder:
            Path(folder).chmod(0o755)
            (Path(folder) / "mdl").write_text("#!/bin/sh\n")
            (Path(folder) / "mdl").chmod(0o755)
            ran = done(mdl(with_environ(shell, PATH=folder), "render", "systemd", "plain"))
            assert (f"\nExecStart={folder}/mdl prefetch" in ran.out) == is_seen
            assert is_seen or "\nExecStart=/usr/local/bin/mdl prefetch" in ran.out
            (Path(folder) / "mdl").write_text(f"#!{own}/python\n")
            ran = done(mdl(with_environ(shell, PATH=folder), "render", "systemd", "plain"))
            assert "\nExecStart=/usr/local/bin/mdl prefetch" in ran.out
