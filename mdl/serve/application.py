"""The application as a whole: what the options ask for, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mdl.serve.access import Access
from mdl.serve.app import Server
from mdl.serve.connection import App
from mdl.serve.jobs import Jobs, job_routes
from mdl.serve.options import ServeOptions
from mdl.serve.repositories import Repositories
from mdl.serve.runs import TrainedRuns, run_routes
from mdl.serve.status import StatusPage
from mdl.serve.traffic import Traffic

if TYPE_CHECKING:
    from mdl.client import Client


def application(
    client: Callable[[], Client],
    options: ServeOptions,
    traffic: Traffic,
    warn: Callable[[str], None],
    *,
    is_local: bool,
) -> App:
    """The ASGI application; it ``is_local`` if only this machine can reach it."""
    repositories, runs = Repositories(client().workspace.stores()), TrainedRuns(options.runs)
    jobs = Jobs(client, options.get_words, options.token)
    status = StatusPage(client, repositories, runs, options, jobs)
    access = Access(options.token, loopback=is_local)
    server = Server(
        repositories,
        access,
        traffic,
        status.document,
        lambda error: warn(f"a request failed: {type(error).__name__}: {error}"),
        gated=options.gated,
    )
    return server.application([*run_routes(server, runs), *job_routes(server, jobs)])
