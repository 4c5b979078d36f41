"""Carrying a file by huggingface_hub itself, Xet included: opt-in (``--via hub``), and verified like any other.

The hub's client is imported here alone and late. It writes into a folder of mdl's own; its word that a file
is complete is not taken, the digest is. Every request of it is held against the allow-list, redirects too; only
Xet's own transfers, which are no part of its HTTP client, are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.files import HubFile
from mdl.net.hosts import Bearer, Hosts
from mdl.net.words import quoted

_fencing = threading.Lock()


class HubCarrier:
    """Fetches by ``hf_hub_download``. ``endpoint`` is the hub's URL, ``hosts`` are those that may be asked."""

    def __init__(self, endpoint: str, bearer: Bearer | None, hosts: Hosts) -> None:
        self._endpoint, self._token = endpoint, bearer.token if bearer else None
        self._fence, self._is_up = _Fence(hosts), False

    def fetch(self, file: HubFile, folder: Path, progressed: Callable[[int], None]) -> Path:
        """Bring one file somewhere below ``folder`` and say where. ``progressed`` is told bytes as they come.

        Raises `AuthError`, `NotFound`, `NetworkError`, `Unsafe`, `OSError`.
        """
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
        return Path(path)


class _Fence:
    """A hook of the hub's client that lets no request pass to a host that is not allowed."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def __call__(self, request: Any) -> None:
        """Called for every request, each hop of a redirect among them. Raises `Unsafe`."""
        self._hosts.check(str(request.url))

    def put_up(self) -> None:
        """Have the hub's clients made with this hook, beside its own and in place of an earlier fence."""
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

        usual = [hook for hook in huggingface_hub.get_session().event_hooks["request"] if not isinstance(hook, _Fence)]
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [*usual, self]}
        huggingface_hub.set_client_factory(
            lambda: hub_httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=None)
        )


def _translated(error: Exception) -> MdlError:
    """The hub client's error as mdl's own, in its words without the request's URL."""
    from huggingface_hub import errors

    words = quoted(str(error).split("\n\n")[0])
    message = f"huggingface_hub: {words}"
    if isinstance(error, errors.GatedRepoError):
        return AuthError(message, hint="accept the licence on the repository's page and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return AuthError(message, hint="absent, private or gated: the server does not tell these apart")
    if isinstance(error, (errors.RevisionNotFoundError, errors.EntryNotFoundError)) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        return NotFound(message)
    return NetworkError(message, hint="run the same command again")


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
