"""get: the main job; and the question which quantisation is meant, asked on a terminal before anything is fetched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import mdl
from mdl import Busy, Cancelled, Deadline, MdlError
from mdl.cli.command import command
from mdl.cli.flags import Choice, DownloadSettings, DryRun, Force, JobFlags, argument, bare_flag
from mdl.cli.session import Session
from mdl.formatting import human_bytes
from mdl.paths import shown
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl import Client, Model, PlanReport, Quantisation, Report


@command(
    "get",
    "mdl get bert-fa --to /models  # a model of the catalog",
    "mdl get openai-community/gpt2 config.json  # a file of a repository",
    "mdl get org/repo-GGUF:Q8_0  # one quantisation, with its shards",
    "mdl get https://host/dl/123 -o x.gguf --into .  # any URL, into this folder",
    "mdl get -n z-image-turbo  # the plan alone",
)
def get(
    session: Session,
    targets: Annotated[
        list[str],
        argument(
            "TARGET",
            "Catalog name, group, org/repo [FILE…], org/repo:QUANT, hf:org/repo@rev/path, hub page or any URL.",
        ),
    ],
    choice: Choice,
    settings: DownloadSettings,
    job: JobFlags,
    dry_run: DryRun = False,
    force: Force = False,
    output: Annotated[
        str | None,
        bare_flag(
            "-o --output NAME",
            "The name of the file of one URL; --to or --into says where it goes.",
            autocompletion=None,
        ),
    ] = None,
    sha256: Annotated[str | None, bare_flag("--sha256 HEX", "One URL: the digest that its file must have.")] = None,
) -> int:
    """Download models; the last line is the folder, or the one file that was asked for. Run it again to continue
    after an interruption."""
    request = Request(targets, choice, settings, job, force, output, sha256)
    if dry_run:
        return plan(session, request)
    report = download(session, request)
    return show(session, report) if report else 0


@value_class
class Request:
    """What is to be downloaded, and how."""

    targets: list[str]
    choice: Choice
    settings: DownloadSettings
    job: JobFlags
    force: bool = False
    output: str | None = None
    sha256: str | None = None


def download(
    session: Session,
    request: Request,
    lock: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    replaces: bool = False,
) -> Report | None:
    """Carry the request out as a job. Returns its report; None if it continues in the background: then its id is shown.

    ``lock`` is held by the process that does it. With ``replaces`` the job takes the place of earlier ones of the same
    targets that ran out of time. Raises `MdlError` if nothing could be begun, `Cancelled` with the `Report` so far.
    """
    client, models, folders = _begin(session, request)
    work = partial(client.download, models, **request.choice.files, force=request.force)
    method = method_of(client, models)
    return run_job(session, models, folders, request.job, method, work, lock, replaces=replaces)


def plan(session: Session, request: Request) -> int:
    """``--dry-run``: what would be fetched, kept and refused, and the room for it. Returns the exit code."""
    client, models, _ = _begin(session, request)
    work = partial(client.plan, models, **request.choice.files, force=request.force)
    return show_plan(session, work, method_of(client, models))


def _begin(session: Session, request: Request) -> tuple[Client, list[Model], Mapping[str, Path]]:
    """The models and their folders, as `begin`."""
    choice = request.choice
    client = session.client(request.settings)
    models = client.models(
        request.targets, into=choice.into, revision=choice.revision, output=request.output, sha256=request.sha256
    )
    in_background = session.is_detached(request.job)
    models = choose_quantisations(session, client, models, choice.files, in_background=in_background)
    return client, models, begin(session, client, models, choice.into)


def begin(session: Session, client: Client, models: Sequence[Model], into: str | None) -> Mapping[str, Path]:
    """The folders of the models. Raises `MdlError` for all that can be known to be wrong before anything is done; from
    then on a signal raises nothing."""
    session.labels = {model.name: model.label for model in models}
    folders = client.folders(models, into=into)
    client.network.time_limit()
    session.signals.poll()
    return folders


Came = TypeVar("Came", bound="Report")


def run_job(
    session: Session,
    models: Sequence[Model],
    folders: Mapping[str, Path],
    flags: JobFlags,
    method: str,
    work: Callable[..., Came],
    lock: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    replaces: bool = False,
) -> Came | None:
    """Do ``work(on_event=...)`` as a job of ``models``, or have another process do it; as
    `download`. If it is stopped, the session has what came so far."""
    with lock():
        run = session.job(models, folders, flags, method)
        if not session.is_detached(flags):
            session.empty = session.empty | {"job": run.id or None}
            report = None
            try:
                with run.running() as on_event:
                    if replaces:
                        run.replace_earlier()
                    report = work(on_event=on_event)
                    on_event.end_with(report.error)
            except (Cancelled, Deadline) as stopped:
                so_far = stopped.so_far or report
                if isinstance(so_far, mdl.Report):
                    session.empty = session.empty | payload(so_far)
                raise
            return report
    try:
        session.start_in_background(run)
    except Busy:
        with lock():  # raises an error that names another prefetch, if one was quicker
            raise
    return None


def method_of(client: Client, models: Sequence[Model]) -> str:
    """How the files come, as events say it."""
    schemes = {origin.scheme for model in models for origin in model.sources}
    is_of_buckets = schemes == {"s3"} and not any(model.files for model in models)
    return "s3" if is_of_buckets else str(client.config["via"])


def show_plan(session: Session, work: Callable[..., PlanReport], method: str) -> int:
    """Make a plan by ``work(on_event=...)``, and show it as a table. Returns the exit code."""
    report = session.watched(work, method)
    session.labels = report.labels
    show_failures(session, report)
    return session.show(payload(report), lambda: _show_plan(session, report), error=report.error)


def show(session: Session, report: Report, *, folders: bool = True, **more: Any) -> int:
    """How it went, and the ``folders`` last, or the path of the one file that was asked for; ``more`` is in the JSON
    document too. Returns the exit code."""
    show_failures(session, report)
    is_only = len(report.models) == 1

    def show_folders() -> None:
        for model in report.models if folders else ():
            if not model.is_whole:
                continue
            place = model.path
            if is_only and model.file:
                place = model.file
            session.console.data(str(place))

    return session.show(payload(report) | more, show_folders, error=report.error)


def payload(report: Report) -> dict[str, Any]:
    """What ``--json`` shows of a report, or of a plan."""
    left_out = ("labels", "release", "release_error")
    facts = {name: value for name, value in vars(report).items() if name not in left_out}
    return facts | {"seconds": round(report.seconds, 3)}


def show_failures(session: Session, report: Any) -> None:
    """One message for each model and reason."""
    error = report.error
    if error is None:
        return
    if len(report.failures) < 2:
        session.error(error)
        return
    session.each_error(MdlError(said.message, item=said.item, hint=said.hint) for said in report.summaries)


def _show_plan(session: Session, report: PlanReport) -> None:
    """Show a row for each file, under the name of its model."""
    if not report.rows and report.error:
        return
    rows = [(action, size, here, shown(file)) for action, size, here, file in report.rows]
    session.console.table(("ACTION", "SIZE", "HERE", "FILE"), rows, drop=("HERE",))
    session.console.note(report.summary)


_MEMORY_OF_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def choose_quantisations(
    session: Session, client: Client, models: Sequence[Model], options: Mapping[str, Any], *, in_background: bool
) -> list[Model]:
    """The same models; of those whose repositories have several quantisations, the one that the user chooses.

    Nothing is asked without a terminal, or if ``options`` (those of `Client.get`) name files: the operation then
    reports which quantisations there are. A job that goes on in the background reads its words again, so that a model
    of the catalog is not asked about either: no words name its quantisation. Raises `Cancelled`.
    """
    if options.get("include") or not session.can_ask:
        return list(models)
    asked = [model for model in models if not (in_background and model.is_of_catalog)]
    choices = client.quantisations(asked, **options)
    chosen = {model.name: model for model in models}
    for model in models:
        if model.name not in choices:
            continue
        name = _ask(session, model, choices[model.name])
        if not name:
            continue
        narrowed = model.of_quantisation(name)
        chosen[model.name] = narrowed
        if not model.is_of_catalog:
            _write_into_words(session, client, model, narrowed)
    return list(chosen.values())


def _ask(session: Session, model: Model, choices: Sequence[Quantisation]) -> str:
    """The name that the user chooses; '' for none."""
    memory = memory_size()
    console = session.console
    console.note(f"{model.target} has {len(choices)} quantisations of one model:")
    width = max(len(choice.name) for choice in choices)
    names = {"": ""}
    """The name that each answer means."""
    for number, choice in enumerate(choices, 1):
        names[choice.name.casefold()] = choice.name
        names[str(number)] = choice.name
        line = f"  {number:>2}  {choice.name:<{width}}  {human_bytes(choice.size):>8}"
        if memory is not None and choice.size is not None:
            line += "  fits into memory" if choice.size < memory else "  does not fit into memory"
        console.note(line)
    question = "Which one?"
    if memory is not None:
        question += f" (this machine has {human_bytes(memory)} of memory)"
    question += f" [1-{len(choices)}, a name, or nothing]"
    while True:
        answer = (session.ask(question, "nothing was downloaded") or "").casefold()
        if answer in names:
            return names[answer]


def _write_into_words(session: Session, client: Client, model: Model, narrowed: Model) -> None:
    """Have the job that is recorded ask for the quantisation that was chosen, so that it can be resumed."""
    words = list(session.words)
    for at, word in enumerate(words):
        if word.startswith("-"):
            continue
        with suppress(MdlError):  # a word that names no model
            meant = [(target.name, target.sources) for target in client.models([word])]
            if meant == [(model.name, model.sources)]:
                words[at] = str(narrowed.sources[0])
    session.words = tuple(words)


def memory_size() -> int | None:
    """The bytes of memory of this machine, or of the container that mdl runs in; None if nothing tells."""
    sizes = []
    with suppress(ValueError, OSError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):  # it may be the word max, which is no limit
        sizes.append(int(_MEMORY_OF_CONTAINER.read_text()))
    return min(sizes, default=None)
