"""systemd: a hardened service that brings models by night, and its timer. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from mdl.errors import NOT_WORTH_RETRYING
from mdl.plugins.render.work import (
    HOMES,
    INSTALL_FOR_ALL,
    TEMPORARY,
    RenderedFile,
    Work,
    meaning,
    ranges,
)

_USUAL_HOME = "/srv/models"
_STOPPED = (75, 143)
"""How a run ends that was stopped and will go on: its time was over, or systemctl stopped it."""
_OWN = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_TOKEN_PATH")
"""Variables that the service has a line for."""
_COPIED = "#   cp {} /etc/mdl/  # and what the catalog extends\n"
_INSTALLED = f"#   {INSTALL_FOR_ALL}  # in a checkout of mdl\n"
_SERVICE = """\
# Made by 'mdl render systemd'. It downloads models by night. To install:
#
{installed}#   useradd --system --home-dir /var/lib/mdl --shell /usr/sbin/nologin mdl
#   install -d -o mdl -g mdl {home} && install -d /etc/mdl
{copied}#   mdl render systemd … --unit service > /etc/systemd/system/mdl-prefetch.service
#   mdl render systemd … --unit timer > /etc/systemd/system/mdl-prefetch.timer
#   systemctl daemon-reload && systemctl enable --now mdl-prefetch.timer
#
# What it did: journalctl -u mdl-prefetch; its jobs: sudo -u mdl XDG_STATE_HOME=/var/lib mdl jobs

[Unit]
Description=Download models (mdl prefetch)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User=mdl
ExecStart={command}
# Stopped, and the next run continues: {stopped_meaning}
SuccessExitStatus={stopped}
# After trouble that passes it runs again, but not after {final_meaning}
Restart=on-failure
RestartSec=10min
RestartPreventExitStatus={final}

# Jobs, locks and logs in /var/lib/mdl, settings in /etc/mdl/config.toml
StateDirectory=mdl
Environment=HOME=/var/lib/mdl XDG_STATE_HOME=/var/lib XDG_CONFIG_HOME=/etc
{variables}
# A token for gated models, readable by root alone:
#LoadCredential=hf_token:/etc/mdl/hf_token
#Environment=HF_TOKEN_PATH=%d/hf_token

# Last in every queue
Nice=19
CPUSchedulingPolicy=idle
IOSchedulingClass=idle

# It writes models and its state, speaks to the network, and that is all
ReadWritePaths={writable}
ProtectSystem=strict
ProtectHome={homes}
PrivateTmp={private_tmp}
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0022
"""
_TIMER = """\
# Made by 'mdl render systemd'. If trouble stopped one run, the next continues; one that still runs is left alone.

[Unit]
Description=Download models by night (mdl prefetch)

[Timer]
OnCalendar={schedule}
RandomizedDelaySec={spread}min
# A run that was missed while the machine was off is made up for at once, if that is within the window
Persistent=true

[Install]
WantedBy=timers.target
"""


def render(work: Work) -> tuple[RenderedFile, ...]:
    """The service and its timer."""
    words = work.nightly_command("--skip-if-running", "--metrics", "/var/lib/mdl/mdl.prom")
    home = work.home or _USUAL_HOME
    variables = work.environ | {"MDL_HOME": home}
    copied = ""
    if work.catalog:
        variables["MDL_CATALOG"] = "/etc/mdl/catalog.toml"
        copied = _COPIED.format("catalog.toml mdl.lock" if work.is_locked else "catalog.toml")

    def is_any_in(folders: Sequence[str]) -> bool:
        """Whether the program or the models are in one of these folders."""
        return any(PurePosixPath(path).is_relative_to(folder) for path in (home, words[0]) for folder in folders)

    lines = [_environment(name, value) for name, value in variables.items()]
    lines += work.shell_comments(_environment, but=(*variables, *_OWN))
    service = _SERVICE.format(
        home=shlex.quote(home),
        installed=_INSTALLED if work.lacks_program else "",
        writable=_quoted(home),
        variables="\n".join(lines),
        copied=copied,
        homes="read-only" if is_any_in(HOMES) else "yes",
        private_tmp="no" if is_any_in(TEMPORARY) else "yes",
        command=" ".join(map(_argument, words)),
        stopped=" ".join(map(str, _STOPPED)),
        stopped_meaning=meaning(_STOPPED),
        final=" ".join(map(str, NOT_WORTH_RETRYING)),
        final_meaning=meaning(NOT_WORTH_RETRYING),
    )
    hours, minute = work.starts()
    usual = f"*-*-* {'*' if len(hours) == 24 else ranges(hours, '..', 2)}:{minute:02}:00"
    timer = _TIMER.format(schedule=work.schedule or usual, spread=work.spread())
    return (RenderedFile("mdl-prefetch.service", service), RenderedFile("mdl-prefetch.timer", timer))


def _environment(name: str, value: str) -> str:
    return f"Environment={_quoted(f'{name}={value}')}"


def _argument(word: str) -> str:
    """A word of a command line."""
    return _quoted(word.replace("$", "$$"))


def _quoted(word: str) -> str:
    """A word as systemd reads it: https://www.freedesktop.org/software/systemd/man/latest/systemd.syntax.html"""
    word = word.replace("%", "%%")
    if re.fullmatch(r"[\w./:=,+@%$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
