"""prefetch: get for cron: silent when all is well, one at a time, within its hours and its bandwidth."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from mdl import places
from mdl.cli.command import command, exit_code_of
from mdl.cli.flags import Choice, DownloadSettings, JobFlags
from mdl.cli.get import Request, download, payload, show, show_plan
from mdl.cli.session import Session
from mdl.errors import Busy, Cancelled, Deadline, MdlError, UsageError
from mdl.jobs.background import is_background, lower_priority
from mdl.jobs.metrics import Outcome, write_metrics
from mdl.locks import file_lock
from mdl.reports import ModelReport, Report
from mdl.schemas import empty

_NAME = "prefetch"


@dataclass(frozen=True)
class PrefetchFlags:
    """How it fits into an unattended machine."""

    skip_if_running: Annotated[
        bool, typer.Option("--skip-if-running", help="End with 0, not 9, while another prefetch runs.")
    ] = False
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", metavar="FILE", help="Prometheus text file, replaced as a whole after each run."),
    ] = None


def register(app: typer.Typer) -> None:
    command(app, _NAME, checks=True, epilog=_EXAMPLES)(prefetch)


_EXAMPLES = """Examples: mdl prefetch nightly --window 22:00-06:00 --limit-rate 20M ·
mdl prefetch --max-duration 2h --metrics /var/lib/node_exporter/mdl.prom"""


def prefetch(
    session: Session,
    choice: Choice,
    settings: DownloadSettings,
    job: JobFlags,
    prefetching: PrefetchFlags,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME|GROUP", help="What to bring; the whole catalog without one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch anew, and replace files that are not mdl's.")] = False,
) -> int:
    """Download for cron: silent unless something fails; never twice at once; what is left is done next time."""

    def request() -> Request:
        models = [] if names else session.client(settings).catalog.models.values()
        return Request(names or [model.name for model in models if not model.gone], choice, settings, job, force)

    if dry_run:
        session.check_config()
        return show_plan(session, request())
    session.console.only_failures()
    metrics = places.output_file(prefetching.metrics, "--metrics") if prefetching.metrics else None
    lower_priority()
    return _Run(session, metrics, skips=prefetching.skip_if_running).of(request)


class _Taken(Busy):
    """Another prefetch has the turn."""


@dataclass
class _Run:
    """One prefetch, and the figures it leaves. A run that was not this one's turn leaves none."""

    session: Session
    metrics: Path | None
    skips: bool
    began: float = field(default_factory=time.monotonic)
    report: Report = field(default_factory=Report)
    request: Request | None = None

    def of(self, request: Callable[[], Request]) -> int:
        try:
            return self._carried_out(request)
        except _Taken as error:
            return self.not_now(error)
        except Deadline as stopped:
            return self.stopped(stopped)
        except (Exception, KeyboardInterrupt, Cancelled) as error:
            self.came_to(error)
            self.measure(exit_code_of(error))
            raise

    def came_to(self, error: BaseException) -> None:
        """How far it was when it was stopped, if the error tells."""
        if isinstance(error, Cancelled | Deadline) and isinstance(error.so_far, Report):
            self.report = error.so_far

    def _carried_out(self, request: Callable[[], Request]) -> int:
        self.session.check_config()
        self.request = request()
        turn = _turn(self.session, self.request.settings)
        done = download(self.session, self.request, turn, replaces=True)
        self.report = done.report or Report()
        code = show(self.session, done, folders=False)
        if code:
            self.session.console.warn(f"the log of this prefetch: mdl jobs log {done.job}")
        if done.report:
            self.measure(code)
        return code

    def not_now(self, error: Busy) -> int:
        """Another one runs; raises `Busy` unless that is to be skipped, which is not for the background to say."""
        if not self.skips or is_background():
            raise error
        return self.session.show(empty(_NAME))

    def stopped(self, error: Deadline) -> int:
        """Its time is over, as was asked for: there is nothing to tell."""
        self.came_to(error)
        self.measure(error.exit_code)
        if self.session.console.progress == "json":
            self.session.console.error(error)
        return self.session.show(empty(_NAME) | self.session.empty | payload(self.report), error=error)

    def measure(self, code: int) -> None:
        """Replace the metrics file, if one is asked for. If it cannot be written a warning says so."""
        if not self.metrics:
            return
        report = self.report if self.report.models else self._standing()
        try:
            write_metrics(self.metrics, Outcome(time.time(), time.monotonic() - self.began, code, report))
        except OSError as error:
            self.session.console.warn(f"the metrics file {self.metrics}: {error.strerror}")

    def _standing(self) -> Report:
        """The status of the models of a run that came to nothing, as far as it is known."""
        if self.request is None:
            return Report()
        try:
            client, choice = self.session.client(self.request.settings), self.request.choice
            models = client.models(self.request.targets, revision=choice.revision)
            globs = {"include": choice.include or (), "exclude": choice.exclude or ()}
            stocks = [client.status(model, into=choice.into, **globs) for model in models]
        except (MdlError, OSError):
            return Report()
        return Report(tuple(ModelReport(model.name, stock.path, stock.status) for model, stock in stocks))


def _turn(session: Session, settings: DownloadSettings) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Holds the one turn that this user's prefetches have. Raises `Busy` at once if another one has it.

    If there is no state folder, the turn is that of the models folder; without either it goes on, as a lock only saves
    work.
    """

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for folder in _folders(session, settings):
                try:
                    stack.enter_context(file_lock(folder, _NAME, 0.0, lambda _holder: None))
                except Busy as error:
                    hint = "wait for it; with --skip-if-running this ends with 0"
                    raise _Taken(error.message, item=_NAME, hint=hint) from error
                except OSError:
                    continue
                break
            yield

    return turn


def _folders(session: Session, settings: DownloadSettings) -> Iterator[Path]:
    with contextlib.suppress(UsageError):
        yield places.state_dir() / "locks"
    yield session.client(settings).workspace.store([]).locks
