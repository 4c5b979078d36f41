"""The manifests of mdl render under the programs that they are for: kubernetes-validate, sbatch, systemd-analyze and
crontab."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support import slurm
from support.data import SMALL
from support.faults import honest
from support.faulty_server import FaultyServer
from support.long import LONG
from support.manifests import ODD, program, rendering
from support.polling import until
from support.shell import Inside, Shell, done

VERSIONS = ("1.30.0", "")
"""An old version of Kubernetes, and the newest that the validator knows."""


@pytest.fixture
def shell(tmp_path: Path, mdl: Inside) -> Shell:
    shell = rendering(tmp_path / "home", "http://cdn.example/f.bin")
    done(mdl(shell, "lock", "--offline"))
    return shell


def said(*command: str, code: int = 0) -> str:
    """What a program says; it must end with that code."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("shape", ["job", "daemonset"])
def test_kubernetes_validate(shape: str, shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """Both shapes are what the API of an old and of the newest version takes, without any unknown key; the control: one
    misspelt key is refused."""
    validate = program("kubernetes-validate")
    text = done(mdl(shell, "render", "k8s", "both", "--shape", shape)).out
    place = tmp_path / "manifest.yaml"
    for version in VERSIONS:
        command = [validate, "--strict", *(["-k", version] if version else []), str(place)]
        place.write_text(text)
        assert said(*command).count("passed") == 2
        place.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
        said(*command, code=1)


def test_systemd_analyze(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """The units are free of mistakes, the timer has a next time, and the service is exposed little; the control: a
    misspelt key is reported."""
    analyze = program("systemd-analyze")
    words = ["both", ODD, "--mdl", "/bin/true", "--to", "/srv/100% mine"]
    units = {unit: tmp_path / f"mdl-prefetch.{unit}" for unit in ("service", "timer")}
    for unit, place in units.items():
        place.write_text(done(mdl(shell, "render", "systemd", *words, "--unit", unit)).out)
    assert said(analyze, "verify", *map(str, units.values())) == ""
    schedule = re.search("^OnCalendar=(.*)$", units["timer"].read_text(), re.MULTILINE)
    assert schedule
    assert "Next elapse" in said(analyze, "calendar", schedule[1])
    exposure = said(analyze, "security", "--offline=yes", "--threshold=20", str(units["service"]))
    assert "OK" in exposure.splitlines()[-1]
    text = units["service"].read_text()
    units["service"].write_text(text.replace("NoNewPrivileges=", "NoNewPriviliges="))
    assert "Unknown key" in said(analyze, "verify", str(units["service"]))


def test_crontab(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """Debian's cron takes it; the control: it does not take an hour 25."""
    crontab = program("crontab")
    if "-n" not in subprocess.run([crontab, "-h"], capture_output=True, text=True, check=False).stderr:
        pytest.skip("NO DRY RUN OF crontab HERE: the line is not checked")
    place = tmp_path / "crontab"
    place.write_text(done(mdl(shell, "render", "cron", "both", ODD, "--to", "/srv/100% mine")).out)
    assert "successfully" in said(crontab, "-n", str(place))
    place.write_text(place.read_text().replace("0-5,22-23", "0-5,22-25"))
    said(crontab, "-n", str(place), code=1)


@pytest.mark.skipif(not LONG or bool(slurm.missing()), reason=slurm.missing() or "MDL_LONG=1 runs it")
def test_slurm(tmp_path: Path, mdl: Inside) -> None:
    """A real Slurm takes the script, runs it, and the models are there; a run that finds the network down is requeued
    by the script itself, and one that is cancelled is not. The control: sbatch refuses a wrong line of the script."""
    small = ["--mem=50M", "--cpus-per-task=1", f"--chdir={tmp_path}"]
    place = tmp_path / "get.sbatch"
    environ = f"PATH={_folder_with_mdl(tmp_path)}:{os.environ['PATH']}"
    with FaultyServer(honest(SMALL)) as server, slurm.slurm(tmp_path / "cluster", nodes=1) as cluster:
        shell = rendering(tmp_path / "home", f"{server.url}/f.bin")
        done(mdl(shell, "lock", "--offline"))
        text = done(mdl(shell, "render", "slurm", "both", "--to", str(tmp_path / "to"))).out
        place.write_text(text)
        cluster.call("sbatch", "--test-only", *small, str(place))
        place.write_text(text.replace("--time=4:00:00", "--time=4:x"))
        with pytest.raises(subprocess.CalledProcessError):
            cluster.call("sbatch", "--test-only", *small, str(place))
        place.write_text(text)
        export = f"--export={environ},HOME={tmp_path}"
        cluster.call("sbatch", "--wait", *small, export, str(place))
        assert (tmp_path / "to" / ODD / "f.bin").read_bytes() == SMALL
        (tmp_path / "to" / ODD / "f.bin").unlink()
        (tmp_path / "down").touch()
        job = cluster.call("sbatch", "--parsable", *small, export, str(place)).strip()
        until(lambda: "Restarts=1" in cluster.call("scontrol", "show", "job", job))
        cluster.call("scancel", job)  # Slurm itself waits two minutes before it runs a requeued job
        (tmp_path / "down").unlink()
        (tmp_path / "slow").touch()
        job = cluster.call("sbatch", "--parsable", *small, export, str(place)).strip()
        until((tmp_path / "began").exists)
        cluster.call("scancel", job)
        states: list[str] = []

        def has_ended() -> bool:
            states.append(re.findall(r"JobState=(\w+)", cluster.call("scontrol", "show", "job", job))[0])
            return states[-1] not in ("RUNNING", "COMPLETING")

        until(has_ended)
        assert states[-1] == "CANCELLED"


def _folder_with_mdl(tmp_path: Path) -> Path:
    """An mdl that finds the network down, or slow, as long as there is a file of that name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "mdl").write_text(
        f"#!/bin/sh\n[ ! -f {tmp_path}/down ] || exit 5\n"
        f"while [ -f {tmp_path}/slow ]; do touch {tmp_path}/began; sleep 0.1; done\n"
        f'exec {shlex.join(Shell(tmp_path).command())} "$@"\n'
    )
    (folder / "mdl").chmod(0o755)
    return folder
