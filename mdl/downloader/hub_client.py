"""The hub's own client: fetches a file by huggingface_hub, Xet included, if the user chose ``--via hub``.

huggingface_hub is imported late. It writes into a folder of mdl's own, and mdl verifies the file like any other. Each
of its requests is checked against the allow-list, redirects too, but not the transfers of Xet, which its HTTP client
does not make. It continues after a broken connection, but keeps nothing of a download that it gave up: the next attempt
begins at the first byte.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from mdl.disk.pool import in_thread
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.files import HubFile
from mdl.net.allowlist import AllowList, OriginToken, host_of, port_of
from mdl.net.certificates import Trust, empty_context
from mdl.net.proxies import Proxy, ProxySettings
from mdl.net.server_messages import safe_excerpt
from mdl.net.transport import system_settings
from mdl.paths import shown

_installing = threading.Lock()
_ETAG = re.compile(r"(W/)?\"?[\w.:+=-]{1,128}\"?")


class HubClient:
    """Fetches files by ``hf_hub_download``. ``endpoint`` is the hub's URL, ``hosts`` are those that may be asked; a
    download is given up after ``stall`` seconds without a byte. Certificates and proxies are those of mdl's own
    requests: ``trust`` makes the TLS contexts, ``environ`` names the proxies."""

    def __init__(
        self,
        endpoint: str,
        token: OriginToken | None,
        hosts: AllowList,
        stall: float,
        trust: Trust,
        environ: Mapping[str, str],
    ) -> None:
        self._endpoint = endpoint
        if token and token.problem:
            raise token.problem.but()
        self._token = token.token if token else None
        self._stall = stall
        self._trust = trust
        self._proxies = ProxySettings.of(system_settings(environ))
        self._hosts = hosts
        self._has_hooks = False

    def fetch(self, file: HubFile, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        """Fetch one file into ``folder`` and return its path. ``on_bytes`` is called with the number of new bytes.

        Raises `AuthError`, `NotFound`, `NetworkError`, `ProtocolError`, `Unsafe`, `OSError`.
        """
        return _watched(lambda count: self._download(file, folder, count), on_bytes, self._stall)

    def prepare(self) -> None:
        """Import huggingface_hub, and have it ask as this client may: before any of its functions is called."""
        os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(max(1, round(self._stall))))  # read when it is imported
        os.environ.setdefault("HF_XET_TELEMETRY_ENABLED", "0")  # hf_xet sends some otherwise
        with _installing:
            if not self._has_hooks:
                self._install_hooks()
                self._has_hooks = True

    def _download(self, file: HubFile, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        self.prepare()
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

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
            raise UsageError(f"huggingface_hub: {one_line(error)}", hint="fetch it without --via hub") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise NetworkError(f"huggingface_hub: {one_line(error)}") from error  # its own: a file of another length
        return Path(path)

    def _install_hooks(self) -> None:
        """Have the hub's client refuse requests to hosts that are not allowed, also after a redirect, and ETags that it
        would make an impossible file name of."""
        import huggingface_hub
        from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

        def check_request(request: Any) -> None:
            self._hosts.check(str(request.url))

        def check_response(response: Any) -> None:
            for name in ("x-linked-etag", "etag"):
                etag = response.headers.get(name)
                if etag is not None and response.request.method == "HEAD" and not _ETAG.fullmatch(etag):
                    raise ProtocolError(f"{response.request.url.host} sent an invalid ETag: {shown(etag)[:80]}")

        hooks = _usual_hooks()
        hooks = {"request": [*hooks["request"], check_request], "response": [*hooks["response"], check_response]}
        trust = self._trust
        proxies = self._proxies

        class Transport(hub_httpx.BaseTransport):
            """Carries each request through mdl's proxy and with mdl's certificates, after each redirect anew."""

            def __init__(self) -> None:
                self._opened: dict[tuple[Any, ...], Any] = {}

            def handle_request(self, request: Any) -> Any:
                url = str(request.url)
                proxy = proxies.choose(url)
                place = proxy.url if proxy else None, host_of(url), port_of(url)
                if place not in self._opened:
                    context = trust.context(*place[1:]) if url.startswith("https:") else empty_context()
                    through = hub_httpx.Proxy(proxy.url, ssl_context=_of_proxy(proxy, trust)) if proxy else None
                    self._opened[place] = hub_httpx.HTTPTransport(verify=context, proxy=through, trust_env=False)
                return self._opened[place].handle_request(request)

            def close(self) -> None:
                for transport in self._opened.values():
                    transport.close()

        huggingface_hub.set_client_factory(
            lambda: hub_httpx.Client(
                event_hooks=hooks, follow_redirects=True, timeout=None, transport=Transport(), trust_env=False
            )
        )


def _of_proxy(proxy: Proxy, trust: Trust) -> ssl.SSLContext | None:
    """Return the TLS context for the connection to a proxy; None if that is without TLS."""
    return trust.context(host_of(proxy.url), port_of(proxy.url)) if proxy.url.startswith("https:") else None


@cache
def _usual_hooks() -> dict[str, list[Callable[..., Any]]]:
    """Return the hooks that the hub's client has without mdl's; none if its own client cannot be made from the
    environment, as with a proxy of a scheme that it does not know."""
    import huggingface_hub
    from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

    try:
        hooks = huggingface_hub.get_session().event_hooks
    except (ValueError, ImportError, OSError, hub_httpx.InvalidURL):
        return {"request": [], "response": []}
    return {event: list(listeners) for event, listeners in hooks.items()}


def _watched(download: Callable[[Callable[[int], None]], Path], on_bytes: Callable[[int], None], stall: float) -> Path:
    """Call ``download`` in another thread, which is abandoned after ``stall`` seconds without a byte: the hub's client
    cannot be stopped from outside. Raises what ``download`` raises, and `NetworkError` if no byte comes."""
    moved_at = time.monotonic()
    is_abandoned = False

    def count(number: int) -> None:
        nonlocal moved_at
        if is_abandoned:
            raise NetworkError("given up")
        moved_at = time.monotonic()
        on_bytes(number)

    def look() -> None:
        nonlocal is_abandoned
        if time.monotonic() - moved_at >= stall:
            is_abandoned = True
            hint = "run the same command again without --via hub: then it continues where it stopped"
            raise NetworkError(f"huggingface_hub: not a byte in {stall:g} s", hint=hint)

    return in_thread(partial(download, count), look)


def _translated(error: Exception) -> MdlError:
    """Return the hub client's error as mdl's own, in its words but without the request's URL."""
    from huggingface_hub import errors

    message = f"huggingface_hub: {one_line(error)}"
    if isinstance(error, errors.GatedRepoError):
        return AuthError(message, hint="accept the licence on the repository's page and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return AuthError(message, hint="absent, private or gated: the server does not tell these apart")
    is_local = isinstance(error, errors.LocalEntryNotFoundError)
    if isinstance(error, (errors.RevisionNotFoundError, errors.EntryNotFoundError)) and not is_local:
        return NotFound(message)
    return NetworkError(message, hint="run the same command again")


def one_line(error: BaseException) -> str:
    """Return what the hub's client says, in one line, without the link to a page that explains HTTP."""
    first_part = str(error).split("\n\n")[0]
    return safe_excerpt(first_part.split("\nFor more information check:")[0])


def _bar(on_bytes: Callable[[int], None]) -> Any:
    """Return a class in place of the hub's progress bar that only counts bytes."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Counter(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that outlives the download

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

    return Counter
