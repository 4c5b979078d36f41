"""serve: what is on this disk, for other programs and machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mdl import Cancelled, Client, UsageError
from mdl.cli.command import command
from mdl.cli.flags import LookSettings, bare_flag, flag
from mdl.cli.session import Session
from mdl.config import places
from mdl.formatting import counted, human_bytes
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.plugins.serve.options import ServeOptions

_LOG = "requests.log"


@value_class
class ServeFlags:
    """What is served, where and to whom."""

    host: Annotated[
        str, bare_flag("--host HOST", "The address to listen at; any but loopback needs a token.", panel="Where")
    ] = "127.0.0.1"
    port: Annotated[
        int, bare_flag("--port PORT", "The port to listen at; 0 takes any free one.", panel="Where", min=0, max=65535)
    ] = 8400
    token_env: Annotated[
        str | None, bare_flag("--token-env NAME", "The variable that has the token. [default: MDL_SERVE_TOKEN]")
    ] = None
    gated: Annotated[
        bool,
        bare_flag("--gated", "Also serve repositories that are gated, private or of unknown access; needs a token."),
    ] = False
    runs: Annotated[list[str] | None, bare_flag("--runs DIR", "A folder that holds trained runs; repeatable.")] = None
    releases: Annotated[
        list[str] | None, bare_flag("--releases DIR", "A folder of releases that the page shows; repeatable.")
    ] = None
    ready_file: Annotated[
        Path | None, flag("--ready-file FILE", "A file that exists while the server answers.", panel="Afterwards")
    ] = None
    log_file: Annotated[
        str | None, bare_flag("--log-file FILE", "The request log, JSON lines; an empty name for none.", panel="Output")
    ] = None


@command(
    "serve",
    "mdl serve  # then: HF_ENDPOINT=http://127.0.0.1:8400 hf download org/repo",
    "mdl serve --host 0.0.0.0 --token-env SERVE_TOKEN  # for other machines",
    "mdl serve --runs runs --releases /srv/tts  # and trained runs, for mdl fetch",
)
def serve(session: Session, settings: LookSettings, flags: ServeFlags) -> int:
    """Serve what is on this disk: models in the hub's protocol, trained runs as zips, and a status page.

    Only verified files are served, and no model file is written.
    """
    from mdl.plugins.serve.server import check_installed, serving

    check_installed()
    options = _options(session, flags)
    session.client(settings)

    def client() -> Client:
        return Client(config=session.config_of(settings), cancel=session.cancel, on_warning=lambda _text: None)

    console = session.console
    server = None
    session.signals.poll()
    try:
        with serving(client, options, secrets=console.secrets, warn=console.warn) as server:
            console.note(f"serving at {server.url}; Ctrl-C ends it")
            if not session.common.json:
                console.data(server.url)
            server.wait(session.cancel)
    except Cancelled as stopped:
        if server is not None:
            session.empty = server.facts
            requests = server.traffic.requests.total()
            sent = human_bytes(server.traffic.bytes_sent)
            hint = f"it answered {counted(requests, 'request')}, {sent}"
            raise stopped.but(hint=hint) from stopped.__cause__
        raise
    return 0


def _options(session: Session, flags: ServeFlags) -> ServeOptions:
    """Raises `UsageError`."""
    from mdl.plugins.serve.options import ServeOptions, token_of

    token = token_of(session.environ, flags.token_env)
    session.console.secrets.add(token)
    return ServeOptions(
        flags.host,
        flags.port,
        token,
        flags.gated,
        tuple(_folder(one, "--runs") for one in flags.runs or ()),
        tuple(_folder(one, "--releases") for one in flags.releases or ()),
        places.output_file(flags.ready_file, "--ready-file"),
        _log(session, flags.log_file),
    )


def _folder(text: str, what: str) -> Path:
    """A folder that is there. Raises `UsageError`."""
    path = places.place_of(text, what).absolute()
    if not path.is_dir():
        raise UsageError("no such folder", item=f"{what} {text}", hint="make it first, or name another")
    return path


def _log(session: Session, given: str | None) -> Path | None:
    """The request log: as ``given``, or in the state folder; None for none."""
    if given is not None:
        return places.place_of(given, "--log-file") if given else None
    state = session.state_dir("no request log is kept")
    return state / _LOG if state else None
