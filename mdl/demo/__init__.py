"""Demo: both of mdl's main jobs, shown by the real commands in a new folder, without a network."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

from mdl.demo.hub import Hub, HubAnswer, HubRequest
from mdl.demo.repositories import Content, Repo
from mdl.disk.process import python_command
from mdl.errors import MdlError

_MODEL = "tiny-demo"
_REPO = "demo/tiny"
_WEIGHTS = 48 * 2**20
_BYTES_PER_SECOND = 12e6
_CUT_AFTER = 2**20
_KILL_AT = 0.4
"""The part of the weights that has been sent when the download is killed."""
_PATIENCE = 60.0
"""Seconds that the download may take to get so far."""

_SERVICE = "service"
_STEPS = (100, 200, 300)
_BEST = 200
"""The checkpoints of the trained run, and which of them is the best."""
_TENSOR = 2**21
"""Bytes of a checkpoint's one tensor; twice that for the optimizer's two moments."""
_PRIVATE = ("MDL_", "HF_", "XDG_", "HTTP_PROXY", "ALL_PROXY")
"""How the variables begin that would lead the commands to another hub, catalog or folder."""
_CATALOG = """\
schema = 1

[models.{model}]
title = "A small generated model"
license = "apache-2.0"
tags = ["demo"]
source = "hf:{repo}"
revision = "{commit}"
"""


class Demo:
    """One run of the demo in ``folder``, which must be empty; all that its commands write is in it, also their state.

    ``say`` gets the story line by line, ``heading`` what comes next; ``after_kill`` is called when a command was
    killed, which may have left bars on the terminal. What the commands write to their stdout goes to the descriptor
    ``stdout``; if it is None, to this process's own. They use colours only with ``color``.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        heading: Callable[[str], None],
        after_kill: Callable[[], None] = lambda: None,
        *,
        stdout: int | None = None,
        color: bool = True,
    ) -> None:
        self.folder = folder
        self._say = say
        self._heading = heading
        self._after_kill = after_kill
        self._stdout = stdout
        self._color = color
        self._catalog = folder / "catalog.toml"
        self._environ: dict[str, str] = {}

    def play(self) -> int:
        """The whole story. Returns 0, or the exit code of the first command that failed."""
        repo = Repo(_REPO, _files())
        with HubServer(Hub([repo]), bytes_per_second=_BYTES_PER_SECOND, cut_after=_CUT_AFTER) as hub:
            self._catalog.write_text(_CATALOG.format(model=_MODEL, repo=_REPO, commit=repo.commit))
            self._environ = self._environ_for(hub.url)
            self._say(f"A hub is up on this machine alone, at {hub.url}.")
            self._say(f"Its one model is in {self._catalog}.")
            try:
                self._download(hub)
                self._release()
            except MdlError as error:
                self._say(f"This did not go as it should: {error.message}")
                return error.exit_code
        return 0

    def _environ_for(self, hub: str) -> dict[str, str]:
        """The variables of the commands. Their home is in the demo's folder: no job of theirs is the user's."""
        kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(_PRIVATE)}
        own = {"HOME": str(self.folder / "home")}
        (self.folder / "home").mkdir()
        return {**kept, **own, "HF_ENDPOINT": hub, "MDL_CATALOG": str(self._catalog)} | (
            {} if self._color else {"NO_COLOR": "1"}
        )

    def _download(self, hub: HubServer) -> None:
        """The first half: a download is interrupted, resumed and verified. Raises `MdlError`."""
        get = f"get {_MODEL} --to models"
        self._step("1. Which models are there?", "list --to models")
        self._step("2. Get it: a connection breaks, then mdl is killed (kill -9).")
        self._kill_on_the_way(hub, get)
        self._step("3. Run the same command again: it continues where it was.", get)
        self._say(f"   Served in all: {hub.bytes_sent / _WEIGHTS:.2f} times the file's size.")
        self._step("4. Read it all again and compare it with its digests.", f"verify {_MODEL} --to models")
        before = hub.requests
        self._step("5. And once more: everything is here, so the hub is not asked.", get)
        self._say(f"   Requests made: {hub.requests - before}.")
        if hub.requests > before:
            raise MdlError("a finished download asked the hub again")

    def _release(self) -> None:
        """The second half: a trained run is packed, released, replaced and rolled back. Raises `MdlError`."""
        pack = "pack run --inference-only --checkpoint"
        unpack = f"--to {_SERVICE} --release"
        _write_run(self.folder / "run")
        self._step("6. A training has left a run here. What does it hold?", "checkpoints run")
        self._step("7. Pack the best of it, without what only the trainer needs.", f"{pack} best -o best.zip")
        self._step(
            "8. Put it into service: unpacked beside, checked, then one link is switched.", f"unpack best.zip {unpack}"
        )
        best = self._in_service()
        self._step(
            "9. The latest goes into service; what is the same in both is not stored twice.",
            f"{pack} latest -o latest.zip",
            f"unpack latest.zip {unpack}",
        )
        if self._in_service() == best:
            raise MdlError("the second release is not served")
        self._step("10. It was no good: back to the one before, with one switch.", f"rollback {_SERVICE}")
        if self._in_service() != best:
            raise MdlError("the rollback did not restore the first release")

    def _step(self, title: str, *commands: str) -> None:
        """Say a title and run the commands. Raises `MdlError` with the exit code of a command if that is not 0."""
        self._heading(title)
        for command in commands:
            with self._running(command) as process:
                code = process.wait()
            if code:
                raise MdlError(f"mdl {command.split()[0]} ended with {code}").but(exit_code=max(1, code))

    def _in_service(self) -> str:
        """Say and return which release is in service."""
        target = os.readlink(self.folder / _SERVICE / "current")
        self._say(f"   {_SERVICE}/current -> {target}")
        return target

    def _kill_on_the_way(self, hub: HubServer, command: str) -> None:
        """Say a command, run it, and kill it when the hub has sent part of the weights."""
        with self._running(command) as process:
            deadline = time.monotonic() + _PATIENCE
            while process.poll() is None and hub.bytes_sent < _WEIGHTS * _KILL_AT and time.monotonic() < deadline:
                time.sleep(0.02)
            process.kill()
        if process.returncode != -signal.SIGKILL:
            raise MdlError("the download was over before it could be killed")
        self._after_kill()
        sent = hub.bytes_sent / 1e6
        whole = _WEIGHTS / 1e6
        self._say(f"   One connection broke; mdl was killed after {sent:.0f} of {whole:.0f} MB were served.")

    @contextlib.contextmanager
    def _running(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Say a command and begin it. It is stopped if the demo is."""
        self._say(f"$ mdl {command}")
        words = [*python_command(), *command.split()]
        with subprocess.Popen(
            words, env=self._environ, stdin=subprocess.DEVNULL, stdout=self._stdout, cwd=self.folder
        ) as process:
            try:
                yield process
            finally:
                process.terminate()


def _files() -> dict[str, Content]:
    """The one model of the demo's hub."""
    config = {"architectures": ["DemoModel"], "hidden_size": 64, "model_type": "demo"}
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "model.safetensors": random.Random(7).randbytes(_WEIGHTS),
        "vocab.txt": "\n".join(f"word{n}" for n in range(500)).encode(),
    }


def _write_run(folder: Path) -> None:
    """A small trained run, as a trainer would leave it: three checkpoints, a log, and a secret."""
    table = {"weight": {"dtype": "BF16", "shape": [_TENSOR // 2], "data_offsets": [0, _TENSOR]}}
    head = json.dumps(table).encode()
    for step in _STEPS:
        checkpoint = folder / f"checkpoint-{step}"
        draw = random.Random(step)
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "demo", "hidden_size": 64}, indent=2))
        (checkpoint / "tokenizer.json").write_text(json.dumps({"vocab": {f"word{n}": n for n in range(5000)}}))
        weights = len(head).to_bytes(8, "little") + head + draw.randbytes(_TENSOR)
        (checkpoint / "model.safetensors").write_bytes(weights)
        (checkpoint / "optimizer.pt").write_bytes(draw.randbytes(2 * _TENSOR))
        state = {"global_step": step, "best_global_step": _BEST, "best_metric": 0.1}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    (folder / "training.log").write_text("".join(f"step {n} loss {3 / (n + 1):.4f}\n" for n in range(_STEPS[-1])))
    (folder / ".env").write_text("HF_TOKEN=not-a-real-one\n")


class HubServer:
    """Serves a hub from entering its context to leaving it.

    Large files are sent with ``bytes_per_second`` on each connection, the first of which is closed after ``cut_after``
    bytes. ``requests`` counts what was asked, ``bytes_sent`` the bytes of large files that were sent.
    """

    def __init__(self, hub: Hub, *, bytes_per_second: float, cut_after: int) -> None:
        self.requests = 0
        self.bytes_sent = 0
        self.bytes_per_second = bytes_per_second
        self._cut_after = cut_after
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._origins = [_Origin(self, hub.answer, is_slow=False), _Origin(self, hub.body_answer, is_slow=True)]
        hub.url, hub.body_url = (origin.url for origin in self._origins)
        self.url = hub.url

    def __enter__(self) -> HubServer:
        for origin in self._origins:
            self._stack.enter_context(origin)
            self._stack.callback(origin.shutdown)
            threading.Thread(target=origin.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count_request(self) -> None:
        """Count a request, of either origin."""
        with self._lock:
            self.requests += 1

    def count_bytes(self, count: int) -> None:
        """Count bytes of a large file."""
        with self._lock:
            self.bytes_sent += count

    def take_cut(self) -> int:
        """After how many bytes this connection is closed: only the first one that asks is."""
        with self._lock:
            cut_after = self._cut_after
            self._cut_after = sys.maxsize
        return cut_after


class _Origin(ThreadingTCPServer):
    """One of the two ports."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: HubServer, answer: Callable[[HubRequest], HubAnswer], *, is_slow: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.server = server
        self.answer = answer
        self.is_slow = is_slow
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a broken connection: a client that is killed leaves one behind."""
        if not isinstance(sys.exception(), OSError):
            raise


class _Request(BaseHTTPRequestHandler):
    """One request; the connection is kept for the next."""

    protocol_version = "HTTP/1.1"
    server: _Origin

    def do_GET(self) -> None:
        """Answer as the hub does."""
        self.server.server.count_request()
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.answer(HubRequest("GET", self.path, headers))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(answer.body, bytes):
            self.wfile.write(answer.body)
        elif self.server.is_slow:
            self._send_slowly(answer.body)
        else:
            self.wfile.writelines(answer.body)

    def _send_slowly(self, pieces: Iterable[bytes]) -> None:
        """Send a large file, or a range of it, at the pace of a slow network."""
        hub = self.server.server
        cut_after = hub.take_cut()
        began = time.monotonic()
        sent = 0
        for piece in pieces:
            self.wfile.write(piece)
            hub.count_bytes(len(piece))
            sent += len(piece)
            if sent >= cut_after:
                self.close_connection = True
                return
            time.sleep(max(began + sent / hub.bytes_per_second - time.monotonic(), 0))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the demo counts requests and logs none."""
