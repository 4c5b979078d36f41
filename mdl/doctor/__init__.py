"""Doctor: checks of what mdl needs from this machine and its network, with advice for each check that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from mdl.config import places
from mdl.doctor import machine, network
from mdl.errors import MdlError
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.client import Client

__all__ = ["CheckResult", "run_checks"]

Check = Callable[[], str | None]
"""Returns what was found, or None if there is nothing to say. Raises `MdlError`, with a hint, if the check fails."""


@value_class
class CheckResult:
    """The result of one check: the ``detail`` says what was found; ``error`` is set if the check failed."""

    name: str
    detail: str
    error: MdlError | None = None

    @property
    def ok(self) -> bool:
        """Whether the check passed."""
        return self.error is None

    @property
    def advice(self) -> str | None:
        """What to do if the check failed."""
        return self.error.advice if self.error else None

    @classmethod
    def of(cls, name: str, check: Check) -> CheckResult | None:
        """Run a check, and return its result; None if it has nothing to say."""
        try:
            detail = check()
        except MdlError as error:
            return cls.failed(name, error)
        return cls(name, detail) if detail else None

    @classmethod
    def failed(cls, name: str, error: MdlError) -> CheckResult:
        """The result of a check that raised ``error``."""
        detail = error.message
        if error.item and error.item not in detail:
            detail = f"{error.item}: {detail}"
        return cls(name, detail, error.but(message=detail, item=name))


def run_checks(client: Client, trouble: MdlError | None = None) -> Iterator[CheckResult]:
    """Run every check, one after the other. ``trouble`` is what is wrong with the file of the settings. Nothing is
    raised but an interruption."""
    yield from _results(
        {
            "versions": machine.versions,
            "plug-ins": machine.plug_ins,
            "settings": partial(machine.settings, client, trouble),
            "catalog": partial(machine.catalog, client),
            "lock": partial(machine.lock, client),
            "models folder": partial(machine.models_folder, lambda: client.config.home.path),
            "state folder": partial(machine.state_folder, places.state_dir),
            "certificates": network.certificates,
            "host credentials": partial(machine.host_credentials, client),
        }
    )
    try:
        endpoint = client.network.endpoint
    except MdlError as error:
        yield _without_endpoint(error)
        return
    with contextlib.ExitStack() as closing:
        connect = None if machine.is_offline(client) else client.network.http
        hub = network.Hub(endpoint, connect, closing)
        yield from _results(
            {
                "proxy": partial(network.proxy, endpoint.url),
                "token file": partial(network.token_file, endpoint),
                "endpoint": partial(network.endpoint, hub),
                "clock": partial(network.clock, hub),
                "token": partial(network.token, hub),
            }
        )


def _results(checks: dict[str, Check]) -> Iterator[CheckResult]:
    for name, check in checks.items():
        result = CheckResult.of(name, check)
        if result:
            yield result


def _without_endpoint(error: MdlError) -> CheckResult:
    """The result of settings that name no hub, or a token that cannot be sent."""
    if error.item == "HF_ENDPOINT":
        return CheckResult.failed("endpoint", error.but(hint="set HF_ENDPOINT to https://host, or unset it"))
    hint = f"put only the token into {error.item}, without spaces or line breaks"
    return CheckResult.failed("token", error.but(hint=hint))
