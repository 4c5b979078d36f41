"""prefetch: get for cron: silent when all is well, one at a time, within its hours and its bandwidth."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from mdl.cli import places
from mdl.cli.bringing import Order, bring
from mdl.cli.command import command, exit_code_of
from mdl.cli.fetching import payload, tell, told
from mdl.cli.flags import Choice, Locking, Network, Unattended, Where
from mdl.cli.session import Session
from mdl.engine.status import model_status
from mdl.errors import Busy, Cancelled, Deadline, MdlError, UsageError
from mdl.events import ModelReport, Report
from mdl.jobs.background import give_way, is_background
from mdl.jobs.metrics import Outcome, write_metrics
from mdl.locks import file_lock
from mdl.schemas import empty

_NAME = "prefetch"


@dataclass(frozen=True)
class Nightly:
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
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME|GROUP", help="What to bring; the whole catalog without one.")
    ] = None,
    where: Where = Where(),  # noqa: B008 - frozen
    choice: Choice = Choice(),  # noqa: B008 - frozen
    network: Network = Network(),  # noqa: B008 - frozen
    locking: Locking = Locking(),  # noqa: B008 - frozen
    unattended: Unattended = Unattended(),  # noqa: B008 - frozen
    nightly: Nightly = Nightly(),
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch anew, and replace files that are not mdl's.")] = False,
) -> int:
    """Download for cron: silent unless something fails; never twice at once; what is left is done next time."""

    def order() -> Order:
        wanted = names or [model.name for model in session.catalog.models.values() if not model.gone]
        turn = _turn(session, where)
        return Order(wanted, where, choice, network, locking, unattended, dry_run, force, turn, replaces=True)

    if dry_run:
        session.check_config()
        return told(session, order())
    session.console.hush()
    metrics = places.output_file(nightly.metrics, "--metrics") if nightly.metrics else None
    give_way()
    return _Run(session, replace(nightly, metrics=metrics)).of(order)


class _Taken(Busy):
    """Another prefetch has the turn."""


@dataclass
class _Run:
    """One prefetch, and the figures it leaves. A run that was not this one's turn leaves none."""

    session: Session
    wishes: Nightly
    began: float = field(default_factory=time.monotonic)
    report: Report = field(default_factory=Report)
    order: Order | None = None

    def of(self, order: Callable[[], Order]) -> int:
        try:
            return self._carried_out(order)
        except Busy as error:
            if isinstance(error, _Taken):
                return self.not_now(error)
            self.measure(error.exit_code)
            raise
        except Deadline as stopped:
            return self.stopped(stopped)
        except (Exception, KeyboardInterrupt, Cancelled) as error:
            self.came_to(error)
            self.measure(exit_code_of(error))
            raise

    def came_to(self, error: BaseException) -> None:
        """How far it was when it was stopped, where the error tells."""
        if isinstance(error, Cancelled) and isinstance(error.so_far, Report):
            self.report = error.so_far

    def _carried_out(self, order: Callable[[], Order]) -> int:
        self.session.check_config()
        self.order = order()
        brought = bring(self.session, self.order)
        self.report = brought.report
        code = tell(self.session, brought, folders=False)
        if code:
            self.session.console.warn(f"the log of this prefetch: mdl jobs log {brought.job}")
        if not brought.is_elsewhere:
            self.measure(code)
        return code

    def not_now(self, error: Busy) -> int:
        """Another one runs; raises `Busy` unless that is to be skipped, which is not for the background to say."""
        if not self.wishes.skip_if_running or is_background():
            raise error
        if self.session.common.json:
            self.session.console.document(_NAME, empty(_NAME), ok=True, exit_code=0)
        return 0

    def stopped(self, error: Deadline) -> int:
        """Its time is over, as was asked for: nothing that anybody has to be told of."""
        self.came_to(error)
        self.measure(error.exit_code)
        if self.session.console.progress == "json":
            self.session.console.error(error)
        if self.session.common.json:
            facts = empty(_NAME) | self.session.empty | payload(self.report)
            self.session.console.document(_NAME, facts, ok=False, exit_code=error.exit_code, error=error)
        return error.exit_code

    def measure(self, code: int) -> None:
        """Replace the metrics file, where one is asked for. That it cannot be written is told, and changes nothing."""
        if not self.wishes.metrics:
            return
        report = self.report if self.report.models else self._standing()
        try:
            write_metrics(self.wishes.metrics, Outcome(time.time(), time.monotonic() - self.began, code, report))
        except OSError as error:
            self.session.console.warn(f"the metrics file {self.wishes.metrics}: {error.strerror}")

    def _standing(self) -> Report:
        """How the models of a run that came to nothing stand on this disk, as far as that is known."""
        session, order = self.session, self.order
        if order is None:
            return Report()
        try:
            models = session.models(order.targets, order.choice)
            store = session.store(order.where, models, order.targets)
            sources = session.sources(store, choice=order.choice, locking=order.locking)
            stocks = [(model.name, model_status(model, sources, store)) for model in models]
        except (MdlError, OSError):
            return Report()
        return Report(tuple(ModelReport(name, str(stock.path), stock.status) for name, stock in stocks))


def _turn(session: Session, where: Where) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Holds the one turn that this user's prefetches have. Raises `Busy` at once where another one has it.

    Where the state folder cannot be had, the turn is that of the models folder; without either it is gone without, as
    a lock only saves work.
    """

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for folder in _folders(session, where):
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


def _folders(session: Session, where: Where) -> Iterator[Path]:
    with contextlib.suppress(UsageError):
        yield places.state_dir() / "locks"
    yield session.store(Where(where.to, layout=where.layout)).locks
