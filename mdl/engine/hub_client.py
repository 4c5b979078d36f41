"""The hub's own client: fetches a file by huggingface_hub, Xet included, if the user chose ``--via hub``.

huggingface_hub is imported late. It writes into a folder of mdl's own, and mdl verifies the file like any other. Each
of its requests is checked against the allow-list, redirects too, but not the transfers of Xet, which its HTTP client
does not make. It continues after a broken connection, but keeps nothing of a download that it gave up: the next attempt
begins at the first byte.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.files import HubFile
from mdl.http.allowlist import AllowList, OriginToken
from mdl.http.refusals import safe_excerpt
from mdl.paths import shown

_installing = threading.Lock()
_ETAG = re.compile(r"(W/)?\"?[\w.:+=-]{1,128}\"?")
_LOOK_SECONDS = 0.5


class HubClient:
    """Fetches files by ``hf_hub_download``. ``endpoint`` is the hub's URL, ``hosts`` are those that may be asked; a
    download is given up after ``stall`` seconds without a byte."""

    def __init__(self, endpoint: str, token: OriginToken | None, hosts: AllowList, stall: float = 30.0) -> None:
        self._endpoint, self._token, self._stall = endpoint, token.token if token else None, stall
        self._hooks, self._is_installed = _Hooks(hosts), False

    def fetch(self, file: HubFile, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        """Fetch one file into ``folder`` and return its path. ``on_bytes`` is called with the number of new bytes.

        Raises `AuthError`, `NotFound`, `NetworkError`, `ProtocolError`, `Unsafe`, `OSError`.
        """
        watched = _Watched(on_bytes, self._stall)
        return watched.run(lambda: self._download(file, folder, watched.on_bytes))

    def _download(self, file: HubFile, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(max(1, round(self._stall))))  # read when it is imported
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

        with _installing:
            if not self._is_installed:
                self._hooks.install()
                self._is_installed = True
        try:
            path = huggingface_hub.hf_hub_download(
                repo_id=file.repo,
                filename=file.path,
                repo_type=file.repo_type,
                revision=file.revision,
                local_dir=folder,
                endpoint=self._endpoint,
                token=self._token or False,
                tqdm_class=_bar(on_bytes),
            )
        except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.LocalEntryNotFoundError) as error:
            raise _translated(error) from error
        except hub_httpx.HTTPError as error:
            raise NetworkError(f"huggingface_hub: {error or type(error).__name__}") from error
        except ValueError as error:
            raise UsageError(f"huggingface_hub: {_line(error)}", hint="fetch it without --via hub") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise NetworkError(f"huggingface_hub: {_line(error)}") from error  # its own: a file of another length
        return Path(path)


class _Watched:
    """A download in a thread of its own, which is abandoned after ``stall`` seconds without a byte: the hub's client
    cannot be stopped from outside."""

    def __init__(self, on_bytes: Callable[[int], None], stall: float) -> None:
        self._on_bytes, self._stall = on_bytes, stall
        self._moved_at, self._is_abandoned = time.monotonic(), False
        self._ended: queue.SimpleQueue[Path | BaseException] = queue.SimpleQueue()

    def on_bytes(self, count: int) -> None:
        """Is called in the thread. Raises `NetworkError` once the download is abandoned."""
        if self._is_abandoned:
            raise NetworkError("given up")
        self._moved_at = time.monotonic()
        self._on_bytes(count)

    def run(self, download: Callable[[], Path]) -> Path:
        """Raises what ``download`` raises, and `NetworkError` if no byte comes."""
        try:
            threading.Thread(target=self._carry_out, args=(download,), name="mdl-hub", daemon=True).start()
        except RuntimeError:  # no thread can be started: only the client's own timeout is left
            return download()
        while True:
            try:
                ended = self._ended.get(timeout=min(_LOOK_SECONDS, self._stall))
            except queue.Empty:
                if time.monotonic() - self._moved_at < self._stall:
                    continue
                self._is_abandoned = True
                raise NetworkError(f"huggingface_hub: not a byte in {self._stall:g} s") from None
            if isinstance(ended, BaseException):
                raise ended
            return ended

    def _carry_out(self, download: Callable[[], Path]) -> None:
        try:
            self._ended.put(download())
        except BaseException as error:
            self._ended.put(error)


class _Hooks:
    """Hooks of the hub's client: they refuse requests to hosts that are not allowed, and ETags that it would make an
    impossible file name of."""

    def __init__(self, hosts: AllowList) -> None:
        self._hosts = hosts

    def __call__(self, request: Any) -> None:
        """Is called for every request, also after a redirect. Raises `Unsafe`."""
        self._hosts.check(str(request.url))

    def answered(self, response: Any) -> None:
        """Is called for every response. Raises `ProtocolError`."""
        for name in ("x-linked-etag", "etag"):
            etag = response.headers.get(name)
            if etag is not None and response.request.method == "HEAD" and not _ETAG.fullmatch(etag):
                raise ProtocolError(f"{response.request.url.host} sent an invalid ETag: {shown(etag)[:80]}")

    def install(self) -> None:
        """Have the hub's clients made with these hooks besides their own, in place of earlier ones of mdl."""
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

        found = huggingface_hub.get_session().event_hooks
        usual = [hook for hook in found["request"] if not isinstance(hook, _Hooks)]
        answers = [one for one in found["response"] if not isinstance(getattr(one, "__self__", None), _Hooks)]
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [*usual, self], "response": [*answers, self.answered]}
        huggingface_hub.set_client_factory(
            lambda: hub_httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=None)
        )


def _translated(error: Exception) -> MdlError:
    """The hub client's error as mdl's own, in its words but without the request's URL."""
    from huggingface_hub import errors

    message = f"huggingface_hub: {_line(error)}"
    if isinstance(error, errors.GatedRepoError):
        return AuthError(message, hint="accept the licence on the repository's page and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return AuthError(message, hint="absent, private or gated: the server does not tell these apart")
    if isinstance(error, (errors.RevisionNotFoundError, errors.EntryNotFoundError)) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        return NotFound(message)
    return NetworkError(message, hint="run the same command again")


def _line(error: Exception) -> str:
    """What the hub's client says, in one line."""
    return safe_excerpt(str(error).split("\n\n")[0])


def _bar(on_bytes: Callable[[int], None]) -> Any:
    """A class in place of the hub's progress bar that only counts bytes."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Counter(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that outlives the download

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

    return Counter
