"""A real Slurm on loopback: munged, slurmctld and one slurmd for each node, all on this host, started by hand.

Each node has private mounts, in which ``local`` is a folder of its own, as the disk of a node is. The daemons have
their own ports, key and folders, and are ended by their process ids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.polling import until
from support.processes import cut_power, free_ports

PROGRAMS = ("sbatch", "srun", "scontrol", "slurmctld", "slurmd", "munged", "unshare")


def missing() -> str:
    """Why there can be no Slurm here; '' if there can."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"NO SLURM HERE: {', '.join(absent)} not installed"
    return "" if os.geteuid() == 0 else "NO SLURM HERE: its daemons need root"


@dataclass
class Slurm:
    """A running cluster. ``local`` is the path that every node has a folder of its own at; from outside it is
    ``disk(node)``."""

    folder: Path
    names: Sequence[str]
    start: Callable[..., subprocess.Popen[bytes]]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def local(self) -> Path:
        return self.folder / "local"

    def disk(self, name: str) -> Path:
        """A node's own folder, as this process sees it."""
        return self.folder / "disks" / name

    @property
    def environ(self) -> dict[str, str]:
        """What the programs of Slurm need to find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": os.environ["PATH"]}

    def call(self, *words: str) -> str:
        """What a program of Slurm says."""
        environ = {**os.environ, **self.environ}
        return subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout

    def states(self) -> dict[str, str]:
        """The state of each node."""
        lines = self.call("sinfo", "--noheader", "--Node", "--format=%N %T").split("\n")
        return dict(line.split() for line in lines if line)

    def start_node(self, name: str) -> None:
        """Start the daemon of a node, in its private mounts."""
        mount = f'mount --bind "{self.disk(name)}" "{self.local}" && exec slurmd -D -N {name}'
        self.daemons[name] = self.start("unshare", "--mount", "--propagation=private", "sh", "-c", mount)

    def kill_node(self, name: str) -> None:
        """End a node as a power cut would: its daemon, and all that runs under it."""
        daemon = self.daemons.pop(name)
        cut_power([daemon.pid, *_stepds(name, self.local)])
        daemon.wait()


def _stepds(name: str, local: Path) -> list[int]:
    """The processes that carry out steps on a node: they are nobody's children, and live in its private mounts."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "slurmstepd":
                mounts = [line.split()[3:5] for line in (entry / "mountinfo").read_text().splitlines()]
                if any(root.endswith(f"/disks/{name}") and place == str(local) for root, place in mounts):
                    found.append(int(entry.name))
    return found


_CONF = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=6
InactiveLimit=0
KillWait=5
MessageTimeout=10
SchedulerParameters=defer,sched_interval=1,sched_min_interval=0,requeue_delay=1
"""


@contextmanager
def slurm(folder: Path, nodes: int = 4) -> Iterator[Slurm]:
    """A cluster of so many nodes, which are called ``n1`` and so on. Ends every daemon that it started."""
    ctld, *ports = free_ports(nodes + 1)
    names = [f"n{number + 1}" for number in range(nodes)]
    for name in ("state", "local", *(f"disks/{name}" for name in names), *(f"spool-{name}" for name in names)):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    folder.chmod(0o755)
    lines = [
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=100"
        for name, port in zip(names, ports, strict=True)
    ]
    lines.append(f"PartitionName=all Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP")
    (folder / "slurm.conf").write_text(_CONF.format(folder=folder, port=ctld) + "\n".join(lines) + "\n")
    with ExitStack() as stack:

        def start(*words: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{Path(words[0]).name}.out").open("ab"))
            environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
            process = subprocess.Popen(words, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
            stack.callback(_end, process)
            return process

        cluster = Slurm(folder, names, start)
        start(
            *("munged", "--foreground", "--force", f"--socket={folder}/munge.sock", f"--key-file={folder}/munge.key"),
            *(f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"),
        )
        until((folder / "munge.sock").exists)
        start("slurmctld", "-D", "-i")
        for name in names:
            cluster.start_node(name)
        until(lambda: _are_idle(cluster))
        try:
            yield cluster
        finally:
            subprocess.run(["scancel", "--state=RUNNING"], env={**os.environ, **cluster.environ}, check=False)


def _are_idle(cluster: Slurm) -> bool:
    try:
        states = cluster.states()
    except subprocess.CalledProcessError:
        time.sleep(0.2)
        return False
    return [states.get(name, "") for name in cluster.names] == ["idle"] * len(cluster.names)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
