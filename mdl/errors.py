"""What can go wrong, and the exit code a script sees for it.

The tree is the documentation: every class below has a code name (the same in ``--json``)
and an exit status. A message says what failed and why, in the server's or system's own words;
``item`` says on what; ``hint`` says what to do next. A hint names flags as the command line writes them: in Python
``--lock-wait`` is the argument ``lock_wait``, and ``--to`` is ``home``.

`MdlError` is an ``Exception``. `Cancelled` is not: code that continues after errors must not continue after a stop.
Both are a `Problem`: anything that ends a command and can be told.

    MdlError                1   INTERNAL
    ├── UsageError          2   USAGE
    │   └── CatalogError    2   CATALOG
    ├── NotFound            3   NOTFOUND
    ├── AuthError           4   AUTH
    ├── NetworkError        5   NET
    ├── ProtocolError       6   PROTO      the server lies: range, length, identity
    │   └── DigestMismatch  6   HASH
    ├── StorageError        7   LOCALIO
    │   ├── NoSpace         7   SPACE
    │   └── Occupied        7   OCCUPIED   a file that mdl must not overwrite
    ├── LockError           8   LOCK
    ├── Busy                9   BUSY
    ├── PartialFailure     10   PARTIAL
    ├── Unsafe             11   UNSAFE
    ├── StateError         12   STATE
    ├── TlsError           13   TLS
    ├── NotFinished        14   PENDING
    └── Deadline           75   DEADLINE
    Cancelled             130   SIGINT (143 for SIGTERM: CANCELLED)
    ├── DeadlineReached    75   DEADLINE   within an operation; its caller gets a Deadline
    └── Paused             75   PAUSED
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

EXIT_CODES: dict[int, tuple[str, str, str]] = {
    0: ("ok", "done, or already there", "go on"),
    1: ("fault", "a fault in mdl", "report it, with what -v prints"),
    2: ("usage", "a wrong call, setting or catalog", "fix it"),
    3: ("not-found", "not found: model, file, revision, run, checkpoint, release", "fix the name"),
    4: (
        "access",
        "authentication, gated, forbidden, a sign-in page instead of the file",
        "fix the token, accept the licence",
    ),
    5: ("network", "network or server trouble after all retries", "try again later"),
    6: (
        "integrity",
        "wrong bytes, wrong size, a server that lies, a damaged archive, a failed --check",
        "look at the source",
    ),
    7: ("storage", "local storage: full, read-only, permission, in the way", "fix the disk"),
    8: (
        "lock",
        "lock missing or stale with --locked or --check; not on disk with --offline",
        "run 'mdl lock', or go online",
    ),
    9: ("busy", "another mdl is at work on it", "wait, then run it again"),
    10: ("several", "several items failed, for different reasons", "read the report"),
    11: ("unsafe", "refused as unsafe: path, link, archive, redirect, host", "look at the source"),
    12: ("state", "a file of mdl's own is damaged, or of a newer mdl", "upgrade mdl"),
    13: ("tls", "TLS: certificate, name, protocol", "fix the CA settings or the clock"),
    14: ("pending", "the remote job is not finished yet", "wait, ask again"),
    75: ("time", "stopped by a time limit or window, or paused; what is there is kept", "run it again"),
    130: ("interrupted", "interrupted with Ctrl-C; what is there is kept", "run it again"),
    141: ("pipe", "the program that reads the output ended too early", "read all of the output"),
    143: ("terminated", "terminated, or cancelled; what is there is kept", "run it again"),
}
"""Every number that mdl exits with: a name for it, what it means, and what a script should do."""
STOPPED = (75, 130, 143)
"""The exit codes of what a time limit, a window, a pause, Ctrl-C or SIGTERM stopped: nothing of it failed."""
WORTH_RETRYING = (5, 9, 75, 143)
"""Exit codes after which the same command may succeed later: a scheduler runs it again."""
NOT_WORTH_RETRYING = (2, 3, 4, 6, 8, 11, 12, 13)
"""Those after which it fails again until a person has changed something."""


class Problem(BaseException):
    """Anything that ends a command and can be told; see the tree in this module's docstring."""

    code = "INTERNAL"
    exit_code = 1
    default_hint: str | None = None
    """What to do, if the code that raises it knows nothing better."""
    status = "failed"
    """What a job that it ends is afterwards."""
    redirected = False
    """True if the refusal came from a host that a redirect led to."""

    def __init__(self, message: str, *, item: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.item = item
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.item}: {self.message}" if self.item else self.message

    @property
    def advice(self) -> str | None:
        """The hint, or what usually helps."""
        return self.hint or self.default_hint

    def but(self, **facts: Any) -> Self:
        """A copy with other ``facts``: ``item``, ``hint``, ``message`` and so on. What was raised stays as it was: who
        knows more about an error raises, or returns, another one."""
        copied = type(self).__new__(type(self), *self.args)
        vars(copied).update(vars(self) | facts)
        copied.__cause__ = self.__cause__
        return copied

    def of_nothing_kept(self) -> Self:
        """A copy whose hint does not say that what was fetched is kept."""
        return self.but(hint=(self.advice or "").removesuffix(KEPT) or None)

    def to_dict(self) -> dict[str, str | int | None]:
        """What ``--json`` tells of it."""
        return {
            "code": self.code,
            "exit_code": self.exit_code,
            "message": self.message,
            "hint": self.advice,
            "item": self.item,
        }


class MdlError(Problem, Exception):
    """Anything that goes wrong. One that stands for several has them as ``errors``."""

    errors: tuple[MdlError, ...] = ()
    status_code: int | None = None
    """The HTTP status that it stands for, if it stands for one."""
    server_code: str = ""
    """What the server calls it: the hub's ``X-Error-Code``."""

    def on(self, item: str) -> Self:
        """The same error if it names an item, else a copy that names this one."""
        return self if self.item else self.but(item=item)


class UsageError(MdlError):
    """The call, a setting or a reference is wrong."""

    code = "USAGE"
    exit_code = 2
    default_hint = "see --help, and 'mdl config' for the settings in use"


class CatalogError(UsageError):
    """The catalog is wrong; the message has every mistake in it."""

    code = "CATALOG"
    default_hint = "fix the catalog; 'mdl config' says which one it is"


class NotFound(MdlError):
    """There is no such model, file, revision, run, checkpoint or job."""

    code = "NOTFOUND"
    exit_code = 3
    default_hint = "'mdl list' shows what there is"


class AuthError(MdlError):
    """The server wants a token, or the licence was not accepted."""

    code = "AUTH"
    exit_code = 4


KEPT = "; what was fetched is kept"
"""What hints add to "run the same command again". It is taken away where nothing was fetched."""


class NetworkError(MdlError):
    """The network or the server fails, also after all retries. ``retry_after`` is the server's own wish, in seconds.
    ``is_answer``: the server said so itself, by a status. ``is_silence``: it accepted the connection, and nothing came
    on it."""

    code = "NET"
    exit_code = 5
    default_hint = "run the same command again later; what was fetched is kept"

    def __init__(
        self,
        message: str,
        *,
        item: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        final: bool = False,
        is_answer: bool = False,
        is_silence: bool = False,
    ) -> None:
        super().__init__(message, item=item, hint=hint)
        self.retry_after = retry_after
        self.final = final
        self.is_answer = is_answer
        self.is_silence = is_silence


class ProtocolError(MdlError):
    """The server, or an archive, contradicts itself or what was asked for: range, length, identity. The server will say
    the same again if it is ``final``."""

    code = "PROTO"
    exit_code = 6
    final = False
    default_hint = "look at the source: the server, or a proxy on the way, is at fault"


class DigestMismatch(ProtocolError):
    """The bytes are not the ones that the digest stands for."""

    code = "HASH"


class StorageError(MdlError):
    """The local disk or folder refuses: full, read-only, no permission, an I/O error."""

    code = "LOCALIO"
    exit_code = 7
    default_hint = "look at the folder and the disk"


class NoSpace(StorageError):
    """The disk is too small for the plan, or full."""

    code = "SPACE"


class Occupied(StorageError):
    """Another file or folder is in the way, which mdl does not overwrite."""

    code = "OCCUPIED"
    default_hint = "move what is in the way, or choose another folder with --to"


class LockError(MdlError):
    """The lock does not cover what is asked for, or something is missing and mdl is offline."""

    code = "LOCK"
    exit_code = 8


def online_hint(offline_by: str) -> str:
    """How to go online again: ``offline_by`` is the flag, variable or setting that keeps mdl offline."""
    if not offline_by:
        return "run it again online"
    if offline_by.startswith("["):
        return f"write false for {offline_by} into config.toml, and run it again"
    return f"run it again without {offline_by}: it keeps mdl offline"


class Busy(MdlError):
    """Another process is at work on the same models."""

    code = "BUSY"
    exit_code = 9


class PartialFailure(MdlError):
    """Several items failed, for different reasons."""

    code = "PARTIAL"
    exit_code = 10


class Unsafe(MdlError):
    """A path, archive, redirect or host was refused."""

    code = "UNSAFE"
    exit_code = 11
    default_hint = "nothing was written; look at the source"


class StateError(MdlError):
    """mdl's own state cannot be read, or a newer mdl wrote it."""

    code = "STATE"
    exit_code = 12


class TlsError(MdlError):
    """The certificate, name or protocol of a TLS connection is not trusted."""

    code = "TLS"
    exit_code = 13


class NotFinished(MdlError):
    """The remote job is not finished yet."""

    code = "PENDING"
    exit_code = 14


class Cancelled(Problem):
    """Stopped by a signal; what is there is kept."""

    code = "SIGINT"
    exit_code = 130
    status = "cancelled"

    def __init__(self, message: str = "interrupted", *, terminated: bool = False) -> None:
        super().__init__(message, hint="what was fetched is kept; run the same command again to continue")
        if terminated:
            self.code = "CANCELLED"
            self.exit_code = 143
        self.so_far: Any = None
        """How far it came, as the room it passes through last tells it: for the caller the operation's report."""

    def as_error(self) -> MdlError:
        """The same as the error of a file that was not reached."""
        return MdlError(self.message, item=self.item, hint=self.hint).but(code=self.code, exit_code=self.exit_code)


class DeadlineReached(Cancelled):
    """What stops an operation whose time is over, inside of it; the caller gets a `Deadline`."""

    code = "DEADLINE"
    exit_code = 75
    status = "paused"

    def as_deadline(self) -> Deadline:
        """The error for the caller."""
        return Deadline(self.message, hint=self.hint).but(so_far=self.so_far)


class Deadline(MdlError):
    """The time limit is over, or the window is closed; what was fetched is kept."""

    code = "DEADLINE"
    exit_code = 75
    status = "paused"
    default_hint = "what was fetched is kept; run the same command again to continue"
    so_far: Any = None
    """The report so far, if the operation had begun."""


class Paused(Cancelled):
    """Stopped by 'mdl jobs pause'; what is there is kept."""

    code = "PAUSED"
    exit_code = 75
    status = "paused"


_FULL = {errno.ENOSPC, errno.EDQUOT}
_IN_THE_WAY = "move what is there already, or choose another place"
_NOT_TAKEN = "this file system does not take what was asked of it: take a folder on a local disk"
_TOO_MANY_FILES = "raise the limit of open files (ulimit -n)"
_HINTS = {
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: "a file is in the way: name a folder, not a file",
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
    errno.EINVAL: _NOT_TAKEN,
    errno.ESPIPE: _NOT_TAKEN,
    errno.ENOTSUP: _NOT_TAKEN,
    errno.EOPNOTSUPP: _NOT_TAKEN,
    errno.ENOSYS: _NOT_TAKEN,
}


def storage_error(
    error: OSError,
    item: str,
    when_full: str = "free some space and run the same command again; what was fetched is kept",
    when_too_large: str = "choose a folder on another disk: FAT32 takes files of up to 4 GB, exFAT takes larger ones",
) -> StorageError:
    """An ``OSError`` of the local disk as mdl's own error, in the system's words. ``when_full`` is the hint if it is
    full, ``when_too_large`` if it takes no file of this size. One without a number is not the system's: a listener or
    a signal handler raised it (``TimeoutError``), and it is raised as it is."""
    if error.errno is None:
        raise error
    words = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpace(words, item=item, hint=when_full)
    if error.errno == errno.EFBIG:
        return NoSpace(words, item=item, hint=when_too_large)
    hint = _HINTS.get(error.errno, "check the folder's permissions and the disk")
    return StorageError(words, item=item, hint=hint)


@contextlib.contextmanager
def storage_trouble(item: object, when_full: str, *when_too_large: str) -> Iterator[None]:
    """Trouble with a file of a hidden name is trouble with ``item``, whose name people know."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise storage_error(error, str(item), when_full, *when_too_large) from error


@contextlib.contextmanager
def suppress_storage_trouble() -> Iterator[None]:
    """Trouble with a file is passed over here, but not the ``TimeoutError`` and the like of a signal handler or of a
    listener, which have no number."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise


def internal_error(error: BaseException) -> MdlError:
    """An unexpected exception as an error that can be shown."""
    if isinstance(error, MemoryError):
        fault = MdlError("there is not enough memory", hint="end other programs, or raise the limit (ulimit -v)")
    else:
        fault = MdlError(
            f"{type(error).__name__}: {error}",
            hint="this is a fault in mdl: run the command again with -v, and report what it prints",
        )
    fault.__cause__ = error
    return fault


def as_problem(error: BaseException) -> Problem:
    """Whatever was raised as an error that can be shown, with the exit code of its class."""
    match error:
        case Problem():
            return error
        case KeyboardInterrupt():
            return Cancelled()
        case OSError() if error.errno is not None:
            return storage_error(error, str(error.filename or "the working folder"))
    return internal_error(error)


def joint_exit_code(codes: Iterable[int]) -> int:
    """One exit code for several items: 0, the one reason they share, or 10."""
    failed = set(codes) - {0}
    for stopped in (130, 143):
        if stopped in failed:
            return stopped
    if len(failed) > 1:
        return PartialFailure.exit_code
    return max(failed, default=0)


def whole_error(message: str, errors: Sequence[MdlError]) -> MdlError:
    """One error with ``message`` for ``errors``, of their class if they share an exit code, else a `PartialFailure`. It
    has them as ``errors``."""
    first = errors[0]
    code = joint_exit_code(error.exit_code for error in errors)
    kind = type(first) if code == first.exit_code else PartialFailure
    shared_code = first.code if kind is type(first) else kind.code
    whole = kind(message, hint=first.advice).but(code=shared_code, exit_code=code, errors=tuple(errors))
    whole.__cause__ = first
    return whole


def one_error(message: str, errors: Sequence[MdlError]) -> MdlError | None:
    """The error itself if there is only one, and `whole_error` for several; None if there is none."""
    if len(errors) > 1:
        return whole_error(message, errors)
    return next(iter(errors), None)


def joint_error(errors: Sequence[MdlError]) -> MdlError | None:
    """One error for several items, with their `joint_exit_code`: the first that has it, or a `PartialFailure`."""
    code = joint_exit_code(error.exit_code for error in errors)
    for error in errors:
        if error.exit_code == code:
            return error
    kinds = ", ".join(sorted({error.code for error in errors}))
    return whole_error(f"{len(errors)} failed ({kinds})", errors) if errors else None
