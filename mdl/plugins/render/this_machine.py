"""This machine, as far as a manifest depends on it: whether a service, which has another user and sees no homes, can
run a program; and the variables of this shell that mdl reads, which a scheduler does not pass on."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from mdl.config.settings import settings_table
from mdl.plugins.render.work import HOMES, TEMPORARY
from mdl.redact import Secrets, has_secret, redact
from mdl.units import as_meant

_LONGEST_FIRST_LINE = 4096


def is_reachable(program: str) -> bool:
    """Whether any user can run the ``program``, and neither it nor its interpreter is in a folder that systemd hides
    from a service (``ProtectHome=yes``, ``PrivateTmp=yes``)."""
    folders = (*HOMES, *TEMPORARY)
    hidden = [path for path in _files_of(program) if any(path.is_relative_to(folder) for folder in folders)]
    return not hidden and not why_closed(program)


def why_closed(program: str) -> str:
    """Why another user than this one cannot run the ``program``: one of its folders, or the interpreter that its first
    line names, is closed to others or is not there. '' if anybody can."""
    for path in _files_of(program):
        try:
            closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & stat.S_IXOTH]
            status = path.stat()
        except OSError:
            return f"{path} is not there, or cannot be seen"
        if closed:
            return f"only its owner may enter {closed[0]}"
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IXOTH:
            return f"others may not run {path}"
    return ""


def _files_of(program: str) -> list[Path]:
    """The program and its interpreter, each under its name and where that leads."""
    named = [Path(program)]
    interpreter = _interpreter_of(named[0])
    if interpreter:
        named.append(interpreter)
    return [path for name in named for path in (name, Path(os.path.realpath(name)))]


def _interpreter_of(program: Path) -> Path | None:
    """What the first line of a script names, by its full path; None for anything else."""
    with contextlib.suppress(OSError), program.open("rb") as file:
        first = file.readline(_LONGEST_FIRST_LINE)
        if first.startswith(b"#!/"):
            return Path(os.fsdecode(first[2:].split()[0]))
    return None


_SECRET = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RUNPOD_API_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
_OPEN = (
    *("HF_ENDPOINT", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    *("TRANSFORMERS_CACHE", "SENTENCE_TRANSFORMERS_HOME"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_PROGRESS_BARS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"),
    *("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    *("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "NO_COLOR"),
)
"""Variables of other programs that mdl reads, as the page of the configuration lists them."""


def variables_of(environ: Mapping[str, str], credentials: Iterable[str] = ()) -> dict[str, str]:
    """The variables that mdl reads and ``environ`` has, by their names, each with its value.

    The value is '' if it may be a secret, or is more than one line. ``credentials`` are the names of variables whose
    values are secrets.
    """
    secret_names = {*_SECRET, *credentials}
    settings = {setting.variable_name for setting in settings_table().values()}
    secrets = Secrets.of(environ)
    secrets.add_all(environ.get(name) for name in secret_names)
    found: dict[str, str] = {}
    for name in sorted(secret_names.union(_OPEN, settings).intersection(environ)):
        value = as_meant(environ[name])
        if not value:
            continue
        is_open = name not in secret_names and value.isprintable() and not has_secret(value)
        found[name] = value if is_open and redact(value, secrets) == value else ""
    return found
