"""Doctor: checks of what mdl needs from this machine and its network, with advice for each check that fails."""

from __future__ import annotations

import contextlib
import platform
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from mdl import __version__
from mdl.doctor.network import Hub, certificates, clock, endpoint, proxy, token, token_file
from mdl.doctor.storage import models_folder, pickles, state_folder
from mdl.errors import MdlError
from mdl.http.client import HttpClient
from mdl.sources.endpoint import Endpoint

__all__ = ["CheckResult", "Environment", "run_checks"]

Check = Callable[[], str | None]
"""Returns what was found, or None if there is nothing to say. Raises `MdlError`, with a hint, if the check fails."""

_PACKAGES = ("httpx", "huggingface_hub", "typer", "rich", "truststore", "filelock", "platformdirs", "tomlkit", "isal")


@dataclass(frozen=True)
class CheckResult:
    """What one check found. If it is not ``ok``, ``advice`` says what to do and ``exit_code`` how serious it is."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    exit_code: int = 0

    @classmethod
    def of(cls, name: str, check: Check) -> CheckResult | None:
        """Run a check. Returns None if it has nothing to say."""
        try:
            detail = check()
        except MdlError as error:
            item = f"{error.item}: " if error.item and error.item not in error.message else ""
            return cls(name, False, item + error.message, error.advice or "", error.exit_code)
        return None if detail is None else cls(name, True, detail)

    def error(self) -> MdlError:
        """A failed check as an error: of the kind that has its exit code."""
        kind = next((kind for kind in MdlError.__subclasses__() if kind.exit_code == self.exit_code), MdlError)
        return kind(self.detail, item=self.name, hint=self.advice or None)


@dataclass(frozen=True)
class Environment:
    """What is checked. Each function may raise `MdlError`, which is then what the check found.

    ``catalog`` and ``lock`` describe themselves in words. If ``connect`` is None, no host is contacted.
    """

    catalog: Callable[[], str]
    lock: Callable[[], str]
    home: Callable[[], Path]
    state: Callable[[], Path]
    endpoint: Callable[[], Endpoint]
    connect: Callable[[], HttpClient] | None


def run_checks(environment: Environment) -> Iterator[CheckResult]:
    """Run every check, one after the other. Nothing is raised but an interruption."""
    local: dict[str, Check] = {
        "versions": versions,
        "catalog": environment.catalog,
        "lock": environment.lock,
        "models folder": partial(models_folder, environment.home),
        "pickles": partial(pickles, environment.home),
        "state folder": partial(state_folder, environment.state),
        "certificates": certificates,
    }
    yield from _results(local.items())
    try:
        found = environment.endpoint()
    except MdlError as error:
        yield from _results([_wrong_setting(error)])
        return
    with contextlib.ExitStack() as closing:
        hub = Hub(found, environment.connect, closing)
        remote: dict[str, Check] = {
            "proxy": partial(proxy, found.url),
            "token file": partial(token_file, found),
            "endpoint": partial(endpoint, hub),
            "clock": partial(clock, hub),
            "token": partial(token, hub),
        }
        yield from _results(remote.items())


def _results(checks: Iterable[tuple[str, Check]]) -> Iterator[CheckResult]:
    for name, check in checks:
        if result := CheckResult.of(name, check):
            yield result


def _wrong_setting(error: MdlError) -> tuple[str, Check]:
    """A check that fails because the value of HF_ENDPOINT, or of the token, is not valid."""
    name, error.hint = "endpoint", "set HF_ENDPOINT to https://host, or unset it"
    if error.item != "HF_ENDPOINT":
        name, error.hint = "token", f"put only the token into {error.item}, without spaces or line breaks"

    def fail() -> None:
        raise error

    return name, fail


def versions() -> str:
    """The versions that a report of a fault should name. This check never fails."""
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    system = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    return f"mdl {__version__}, {system}, {ssl.OPENSSL_VERSION}, {', '.join(found)}"
