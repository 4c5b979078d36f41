"""Hosts on loopback: a real sshd for each, on a port of its own, and an ``ssh`` that knows them by name.

Each host has a home folder of its own, and answers with the environment that its administrator set.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.polling import until
from support.processes import cut_power, free_ports

_SSHD = "/usr/sbin/sshd"
_CONF = """\
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
AllowUsers {user}
LogLevel ERROR
SetEnv HOME={home} XDG_CONFIG_HOME={home}/.config XDG_STATE_HOME={home}/.state MDL_HOME={home}/models {more}
"""


def missing() -> str:
    """Why there can be no hosts here; '' if there can."""
    absent = [name for name in (_SSHD, "ssh", "ssh-keygen") if not shutil.which(name)]
    return f"NO SSHD HERE: {', '.join(absent)} not installed" if absent else ""


@dataclass
class Hosts:
    """The hosts that run. ``path`` goes before the others in PATH: its ``ssh`` knows them."""

    folder: Path
    names: Sequence[str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / "bin"

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def kill(self, name: str) -> None:
        """End a host as a power cut would: sshd, its connections, and all that they run."""
        daemon = self.daemons.pop(name)
        cut_power([daemon.pid])
        daemon.wait()


@contextmanager
def hosts(folder: Path, names: Sequence[str], **environ: str) -> Iterator[Hosts]:
    """Hosts of these names; ``environ`` is set on each. Ends every sshd that it started."""
    found = Hosts(folder, names)
    (folder / "bin").mkdir(parents=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it, and only a boot makes it
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    config = [f"IdentityFile {folder}/user_key", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"]
    config += [f"User {user}", "LogLevel ERROR", "Host *", "HostName 127.0.0.1"]
    with ExitStack() as stack:
        for name in names:
            found.home(name).mkdir(parents=True)
            [port] = free_ports(1)
            config += [f"Host {name}", f"Port {port}"]
            more = " ".join(f"{key}={value}" for key, value in environ.items())
            text = _CONF.format(folder=folder, user=user, home=found.home(name), more=more)
            (folder / f"{name}.conf").write_text(text)
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            words = [_SSHD, "-D", "-e", "-f", str(folder / f"{name}.conf"), "-p", str(port)]
            found.daemons[name] = process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            until(lambda port=port: _answers(port))
        (folder / "config").write_text("\n".join([*config, ""]))
        (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{folder}/config" "$@"\n')
        (folder / "bin" / "ssh").chmod(0o755)
        yield found


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False
