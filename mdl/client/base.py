"""The ground of `mdl.Client`: settings become objects. What an operation needs is opened, and imported, when it is
first used."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias, TypedDict, TypeGuard, Unpack

from mdl.cancel import CancelToken
from mdl.config import places
from mdl.config.settings import Config, Settings, client_settings
from mdl.context import Folder, Workspace
from mdl.errors import Cancelled, DeadlineReached
from mdl.listener import Listener, silence
from mdl.units import as_text, parse_rate, texts

if TYPE_CHECKING:
    from mdl.catalog.model import Catalog, Model
    from mdl.ops.configure import SettingValue
    from mdl.redact import Secrets
    from mdl.tools import Tools

Targets: TypeAlias = "str | Model | Sequence[str | Model]"
"""Names and groups of the catalog, ``hf:org/repo[@revision][/path]``, pages of the hub, any URL, or models."""
Texts: TypeAlias = "str | Iterable[str]"
"""One text, or several."""


class ClientOptions(Settings, total=False):
    """The settings, plus the listener, the progress bars, the cancel token and what is called with warnings."""

    on_event: Listener
    progress: bool
    cancel: CancelToken
    on_warning: Callable[[str], None]


class CallOptions(TypedDict, total=False):
    """What every operation on models takes. Files land in ``home/<model>/``, or in ``into`` itself for one target;
    ``include`` and ``exclude`` are globs on file names; ``on_event`` replaces the client's listener; ``cancel`` stops
    this one call."""

    into: Folder | None
    include: Texts
    exclude: Texts
    on_event: Listener | None
    cancel: CancelToken | None


class MdlWarning(UserWarning):
    """Something about the settings that may hurt later."""


def _warn(text: str) -> None:
    """Warn at the line that called mdl."""
    level = 1
    frame = sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("mdl", "functools", "contextlib"):
        level = level + 1
        frame = frame.f_back
    warnings.warn(text, MdlWarning, stacklevel=level)


_NAMED_ELSEWHERE = {
    "local_dir": "'into'",
    "cache_dir": "'home' with layout='hf-cache'",
    "to": "'home'",
    "allow_patterns": "'include'",
    "ignore_patterns": "'exclude'",
    "max_workers": "'connections'",
    "force_download": "'force'",
    "local_files_only": "'offline'",
    "token": "HF_TOKEN in the environment",
}
"""What huggingface_hub, or the command line, calls a setting."""


class ClientBase:
    """The settings, and what one operation works with."""

    def __init__(
        self,
        *,
        on_event: Listener | None = None,
        progress: bool = False,
        cancel: CancelToken | None = None,
        on_warning: Callable[[str], None] | None = None,
        config: Config | None = None,
        secrets: Secrets | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """``config`` holds settings that were read already; it replaces ``settings``. ``secrets`` is told the token,
        which must be kept out of everything that is shown. Raises ``TypeError`` for an unknown setting."""
        for name in settings:
            if name not in client_settings():
                near = get_close_matches(name, [*client_settings(), *CallOptions.__optional_keys__], 1)
                meant = _NAMED_ELSEWHERE.get(name) or (repr(near[0]) if near else "")
                raise TypeError(f"mdl has no setting {name!r}{meant and f'; did you mean {meant}?'}")
        own = cancel if _is_token(cancel) else CancelToken()
        self.workspace = Workspace(config or Config(settings), own, on_warning or _warn, secrets)
        self._on_event = on_event
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open between two operations."""

    @property
    def catalog(self) -> Catalog:
        """The catalog in use. Raises `CatalogError` with every mistake in it."""
        return self.workspace.catalog

    def limit_rate(self, rate: str | float | None) -> None:
        """Keep to another rate from now on, also in an operation that runs in another thread.

        ``rate`` is in bytes a second, ``20M`` or a timetable ``08:00,2M 22:00,off``; None or ``off`` is no limit.
        Raises `UsageError`.
        """
        self.workspace.throttle.change(parse_rate("off" if rate is None else as_text(rate), "limit_rate"))

    def stopped_by(self, cancel: CancelToken | None) -> CancelToken:
        """What stops one operation: the client's own token, or the one that its caller gave."""
        stop = CancelToken(self.workspace.cancel)
        if _is_token(cancel):
            cancel.link(stop)
        return stop

    @contextlib.contextmanager
    def tools(
        self,
        models: Sequence[Model],
        *,
        into: Folder | None = None,
        include: Texts = (),
        exclude: Texts = (),
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
        online: bool = True,
        exact: bool = False,
        keeps: bool = True,
        mirror: str = "",
        **unknown: object,
    ) -> Iterator[Tools]:
        """What one operation works with; `CallOptions` are those of its caller. ``exact`` resolves to commits, past the
        lock; what sources answer is kept if it ``keeps``; a ``mirror`` is the only one asked for files. Window and
        duration limit an operation that is ``online`` and not ``exact``: one that downloads."""
        from mdl.downloader.deadline import time_limit
        from mdl.sources import page_hosts
        from mdl.tools import Tools, with_sources

        for name in unknown:
            where = f": give it to mdl.Client({name}=…)" if name in client_settings() else ""
            raise TypeError(f"{name!r} is no option of one call{where}")
        work = self.workspace
        stop = self.stopped_by(cancel)
        with contextlib.ExitStack() as stack:
            listener = self._on_event if on_event is None else on_event
            if listener is None and self._progress:
                from mdl.console import progress_bars

                listener = stack.enter_context(progress_bars())
            listener = silence if listener is None else with_sources(listener, models, page_hosts(work.endpoint))
            if online and not exact:
                stack.enter_context(time_limit(work.time_limit(), stop))
            store = work.store(models, into, stop)
            network = None
            if online and not work.config.is_offline:
                network = stack.enter_context(work.network(models, stop, with_lock=not exact, mirror=mirror))
            globs = tuple(() if one is None else texts(one) for one in (include, exclude))
            resolver = work.resolver(
                store, network, listener, *globs, exact=exact, is_strict=True, keeps=keeps, mirror=mirror
            )
            stack.enter_context(_interrupts())
            wait = work.config["lock_wait"]
            hub_client = None if mirror else work.hub_client(models)
            copies = work.local_copies(store)
            tools = Tools(
                resolver,
                store,
                network,
                wait,
                hub_client,
                copies,
                listener,
                work.config["max_size"],
                endpoint=work.endpoint.url,
                offline_by=work.config.offline_by,
            )
            try:
                yield tools
            except BaseException:  # also of the listener, or of a signal handler: threads that are at work end as well
                stop.set()
                raise

    def settings(self) -> list[SettingValue]:
        """Every setting in effect, with where it is from, and what is wrong with it. Raises `UsageError` if
        ``config.toml`` cannot be read."""
        from mdl.ops.configure import effective

        return effective(self.workspace.config, lambda: self.workspace.catalog_paths)

    def configure(self, name: str, value: Texts | None) -> Path:
        """Write one setting into ``config.toml``, or with None take it out; its comments stay. Returns the path.
        ``value`` is as a person writes it. This client keeps the settings that it has. Raises `UsageError` for an
        unknown setting and for a wrong value, `Unsafe` if the file is a link out of its folder, `Busy`."""
        from mdl.ops.configure import set_value, unset

        path = places.config_file()
        if value is None:
            unset(path, name)
        else:
            set_value(path, name, texts(value))
        return path


def _is_token(cancel: CancelToken | None) -> TypeGuard[CancelToken]:
    """Whether a token was given. Raises ``TypeError`` for anything else."""
    if not isinstance(cancel, CancelToken | None):
        raise TypeError(f"cancel is a mdl.CancelToken, not {cancel!r}")
    return cancel is not None


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Once what was fetched is safe, a Ctrl-C that Python made a ``KeyboardInterrupt`` is one again, and a time limit
    is an ordinary error."""
    try:
        yield
    except DeadlineReached as stopped:
        raise stopped.as_deadline() from stopped
    except Cancelled as stopped:
        if isinstance(stopped.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # one traceback, of what was interrupted
        raise
