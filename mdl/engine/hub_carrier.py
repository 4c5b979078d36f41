"""Carrying a file by huggingface_hub itself, Xet included: opt-in (``--via hub``), and verified like any other.

The hub's client is imported here alone and late. It writes into a folder of mdl's own; its word that a file
is complete is not taken, the digest is. Every request of it is held against the allow-list, redirects too; only
Xet's own transfers, which are no part of its HTTP client, are not. It goes on where a connection broke, but keeps
nothing of a download that it gave up: the next attempt begins at the first byte.
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

_fencing = threading.Lock()
_ETAG = re.compile(r"(W/)?\"?[\w.:+=-]{1,128}\"?")
_LOOK_SECONDS = 0.5


class HubCarrier:
    """Fetches by ``hf_hub_download``. ``endpoint`` is the hub's URL, ``hosts`` are those that may be asked; a download
    is given up after ``stall`` seconds without a byte."""

    def __init__(self, endpoint: str, bearer: OriginToken | None, hosts: AllowList, stall: float = 30.0) -> None:
        self._endpoint, self._token, self._stall = endpoint, bearer.token if bearer else None, stall
        self._fence, self._is_up = _Fence(hosts), False

    def fetch(self, file: HubFile, folder: Path, progressed: Callable[[int], None]) -> Path:
        """Bring one file somewhere below ``folder`` and say where. ``progressed`` is told bytes as they come.

        Raises `AuthError`, `NotFound`, `NetworkError`, `ProtocolError`, `Unsafe`, `OSError`.
        """
        watched = _Watched(progressed, self._stall)
        return watched.run(lambda: self._download(file, folder, watched.progressed))

    def _download(self, file: HubFile, folder: Path, progressed: Callable[[int], None]) -> Path:
        os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(max(1, round(self._stall))))  # read when it is imported
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

        with _fencing:
            if not self._is_up:
                self._fence.put_up()
                self._is_up = True
        try:
            path = huggingface_hub.hf_hub_download(
                repo_id=file.repo,
                filename=file.path,
                repo_type=file.repo_type,
                revision=file.revision,
                local_dir=folder,
                endpoint=self._endpoint,
                token=self._token or False,
                tqdm_class=_bar(progressed),
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
    """A download in a thread of its own, which is left to itself once it has been silent for ``stall`` seconds: the
    hub's client cannot be stopped from outside."""

    def __init__(self, progressed: Callable[[int], None], stall: float) -> None:
        self._progressed, self._stall = progressed, stall
        self._moved_at, self._is_left = time.monotonic(), False
        self._ended: queue.SimpleQueue[Path | BaseException] = queue.SimpleQueue()

    def progressed(self, count: int) -> None:
        """Told in the thread. Raises `NetworkError` there once nobody waits for it any more."""
        if self._is_left:
            raise NetworkError("given up")
        self._moved_at = time.monotonic()
        self._progressed(count)

    def run(self, download: Callable[[], Path]) -> Path:
        """Raises what ``download`` does, `NetworkError` for silence."""
        try:
            threading.Thread(target=self._carry_out, args=(download,), name="mdl-hub", daemon=True).start()
        except RuntimeError:  # no thread to be had: the client's own timeout has to do
            return download()
        while True:
            try:
                ended = self._ended.get(timeout=min(_LOOK_SECONDS, self._stall))
            except queue.Empty:
                if time.monotonic() - self._moved_at < self._stall:
                    continue
                self._is_left = True
                raise NetworkError(f"huggingface_hub: not a byte in {self._stall:g} s") from None
            if isinstance(ended, BaseException):
                raise ended
            return ended

    def _carry_out(self, download: Callable[[], Path]) -> None:
        try:
            self._ended.put(download())
        except BaseException as error:
            self._ended.put(error)


class _Fence:
    """Hooks of the hub's client: no request passes to a host that is not allowed, nor an ETag that it would make an
    impossible file name of."""

    def __init__(self, hosts: AllowList) -> None:
        self._hosts = hosts

    def __call__(self, request: Any) -> None:
        """Called for every request, each hop of a redirect among them. Raises `Unsafe`."""
        self._hosts.check(str(request.url))

    def answered(self, response: Any) -> None:
        """Called for every answer. Raises `ProtocolError`."""
        for name in ("x-linked-etag", "etag"):
            etag = response.headers.get(name)
            if etag is not None and response.request.method == "HEAD" and not _ETAG.fullmatch(etag):
                raise ProtocolError(f"{response.request.url.host} sent an ETag that is none: {shown(etag)[:80]}")

    def put_up(self) -> None:
        """Have the hub's clients made with this hook, beside its own and in place of an earlier fence."""
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

        found = huggingface_hub.get_session().event_hooks
        usual = [hook for hook in found["request"] if not isinstance(hook, _Fence)]
        answers = [one for one in found["response"] if not isinstance(getattr(one, "__self__", None), _Fence)]
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [*usual, self], "response": [*answers, self.answered]}
        huggingface_hub.set_client_factory(
            lambda: hub_httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=None)
        )


def _translated(error: Exception) -> MdlError:
    """The hub client's error as mdl's own, in its words without the request's URL."""
    from huggingface_hub import errors

    message = f"huggingface_hub: {_line(error)}"
    if isinstance(error, errors.GatedRepoError):
        return AuthError(message, hint="accept the licence on the repository's page and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return AuthError(message, hint="absent, private or gated: the server does not say which")
    if isinstance(error, (errors.RevisionNotFoundError, errors.EntryNotFoundError)) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        return NotFound(message)
    return NetworkError(message, hint="run the same command again")


def _line(error: Exception) -> str:
    """What the hub's client says of it, in one line."""
    return safe_excerpt(str(error).split("\n\n")[0])


def _bar(progressed: Callable[[int], None]) -> Any:
    """A stand-in for the hub's progress bar that only counts."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Counter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            progressed(int(n or 0))

    return Counter
