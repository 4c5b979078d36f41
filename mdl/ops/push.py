"""push: upload a trained model to a hub, as the files of a repository, with the hub's own client.

The same rules as of `mdl pack` say which files go: what holds a secret stays here. huggingface_hub uploads: what an
earlier push has uploaded is not sent again. Its requests go through mdl's allow-list, proxies and certificates; the
transfers of Xet do not.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.archive.manifest import NAME, Skipped
from mdl.cancel import CancelToken
from mdl.disk.pool import in_thread
from mdl.downloader.hub_client import HubClient, one_line
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.events import Listener, Planned
from mdl.notebook import Tabular
from mdl.ops.pack import plan_pack
from mdl.ops.unpack import unpack
from mdl.sources.hub_endpoint import Endpoint
from mdl.sources.hub_origin import HubOrigin, is_pinned
from mdl.values import value_class

if TYPE_CHECKING:
    from huggingface_hub import HfApi

UPLOAD_HOSTS = ("hf-hub-lfs-us-east-1.s3-accelerate.amazonaws.com", "hf-hub-lfs-eu-west-1.s3-accelerate.amazonaws.com")
"""The hosts at which the public hub has large files uploaded that do not go to Xet."""
_CARD = "README.md"
_OF_A_DESCRIPTOR = 1
"""A plan of `pack` for an open descriptor looks for no file that it would replace."""


@value_class
class PushRequest:
    """What is uploaded: a folder or an archive, ``source``, to a repository of the hub, ``origin``. A repository that
    is not there is made, private unless it is to be ``public``. A ``dry_run`` contacts nothing."""

    source: Path
    origin: HubOrigin
    public: bool = False
    dry_run: bool = False


@value_class
class PushedFile:
    """A file of a push: its path in the repository and its size in bytes."""

    path: str
    size: int


@value_class
class PushResult(Tabular):
    """How a push went, or with ``dry_run`` would go.

    ``repo`` is the repository (``hf:org/name``) and ``branch`` its branch. ``commit`` is the id of the commit that has
    the files now, and ``url`` its page; both are None if nothing was sent. ``private`` says who may read the
    repository; None if that was not asked. ``skipped`` are files that stay here, and why.
    """

    repo: str
    branch: str
    files: tuple[PushedFile, ...]
    skipped: tuple[Skipped, ...] = ()
    commit: str | None = None
    url: str | None = None
    private: bool | None = None

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.size for file in self.files)


@value_class
class _Upload:
    """Files of a folder that are to be in a repository: the path there, and the file here."""

    origin: HubOrigin
    files: Sequence[tuple[PushedFile, Path]]
    skipped: Sequence[Skipped]

    @property
    def branch(self) -> str:
        return self.origin.revision or "main"

    def report(self, **done: Any) -> PushResult:
        files = tuple(file for file, _ in self.files)
        return PushResult(self.origin.repository, self.branch, files, tuple(self.skipped), **done)


def check_repository(origin: object, item: str) -> HubOrigin:
    """The repository that can be pushed to. Raises `UsageError` for anything else."""
    hint = "write hf:org/repo, hf:org/repo@branch or hf:datasets/org/repo"
    if not isinstance(origin, HubOrigin) or not origin.is_whole:
        raise UsageError("not a repository of the hub", item=item, hint=hint)
    if "/" not in origin.repo:
        raise UsageError("the repository's owner is missing", item=item, hint=hint)
    if origin.repo_type == "space":
        raise UsageError("a space is a program, not a model", item=item, hint=hint)
    if is_pinned(origin.revision):
        raise UsageError("a commit cannot be changed", item=item, hint="name a branch, or none for main")
    return origin


def push(
    request: PushRequest,
    endpoint: Endpoint,
    connect: Callable[[], HubClient],
    on_event: Listener,
    cancel: CancelToken,
) -> PushResult:
    """Upload an archive's files, or a folder's, in one commit to the hub at ``endpoint``, with the client that
    ``connect`` makes.

    The model card of a repository is never replaced. Raises what `plan_pack` and `unpack` raise for the source and what
    ``connect`` raises; `UsageError` if the repository is public and that was not said, `AuthError`, `NotFound`,
    `NetworkError`, `Unsafe` for a host that is not allowed, `Cancelled`.
    """
    client = None if request.dry_run else connect()
    with _folder_of(request.source, on_event, cancel) as folder:
        upload = _planned(folder, request.origin, is_archive=folder != request.source)
        report = upload.report()
        on_event(
            Planned(
                files=len(upload.files),
                bytes_total=report.bytes,
                bytes_kept=0,
                bytes_to_fetch=report.bytes,
                verb="upload",
            )
        )
        if client is None:
            return report
        return in_thread(lambda: _sent(upload, client, endpoint, public=request.public), cancel.check)


@contextlib.contextmanager
def _folder_of(source: Path, on_event: Listener, cancel: CancelToken) -> Iterator[Path]:
    """The folder to be pushed: the source itself, or what an archive unpacks to, which is checked like any other."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="mdl-push-") as place:
        unpacked = unpack(source, Path(place) / "model", cancel=cancel, on_event=on_event)
        yield unpacked.path


def _planned(folder: Path, origin: HubOrigin, *, is_archive: bool) -> _Upload:
    """Choose the files of a folder that go to the repository. Those of an archive were chosen when it was packed."""
    selection = plan_pack(folder, _OF_A_DESCRIPTOR, whole_run=is_archive).selection
    root = Path(selection.tree.root)
    files: list[tuple[PushedFile, Path]] = []
    for member in selection.members:
        if not member.is_folder:
            pushed = PushedFile(member.path.text, member.size)
            files.append((pushed, root / member.entry.real))
    skipped = [skipped for skipped in selection.skipped if skipped.path != NAME]
    if not files:
        raise NotFound("there is no file to be pushed", item=str(folder))
    return _Upload(origin, files, skipped)


def _sent(upload: _Upload, client: HubClient, endpoint: Endpoint, *, public: bool) -> PushResult:
    """Send the files with huggingface_hub. Raises as `push`."""
    client.prepare()
    import huggingface_hub
    from huggingface_hub.utils import httpx as hub_httpx  # type: ignore[attr-defined]

    api = huggingface_hub.HfApi(endpoint=endpoint.url, token=endpoint.token or False)
    try:
        with _quiet():
            return _committed(upload, api, public=public)
    except huggingface_hub.errors.HFValidationError as error:
        raise UsageError(f"huggingface_hub: {one_line(error)}", item=upload.origin.repository) from error
    except (hub_httpx.HTTPError, RuntimeError, OSError) as error:  # OSError is the class of HfHubHTTPError
        raise _as_own_error(error, upload.origin, endpoint) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error.__cause__, huggingface_hub.errors.BadRequestError):  # it has the hub read the card first
            raise _wrong_card(one_line(error)) from error
        why = f"huggingface_hub cannot read an answer: {type(error).__name__}: {one_line(error)}"
        raise ProtocolError(why, item=upload.origin.repository, hint="look at what HF_ENDPOINT names") from error


def _committed(upload: _Upload, api: HfApi, *, public: bool) -> PushResult:
    """Make the repository and the branch if they are missing, and commit the files."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import RepositoryNotFoundError

    origin = upload.origin
    where: dict[str, Any] = {"repo_id": origin.repo, "repo_type": origin.repo_type}
    try:
        facts = api.repo_info(**where)
    except RepositoryNotFoundError:
        api.create_repo(**where, private=not public, exist_ok=True)
        facts = api.repo_info(**where)
    if facts.private is False and not public:
        why = "everybody may read this repository"
        raise UsageError(why, item=origin.repository, hint="--public says that this is meant")
    if origin.revision is not None and origin.revision != "main":
        api.create_branch(**where, branch=origin.revision, exist_ok=True)
        facts = api.repo_info(**where, revision=origin.revision)
    files = list(upload.files)
    skipped = list(upload.skipped)
    siblings = getattr(facts, "siblings", None) or ()
    if _CARD in {sibling.rfilename for sibling in siblings}:
        files = [pair for pair in upload.files if pair[0].path != _CARD]
        if len(files) < len(upload.files):
            skipped.append(Skipped(_CARD, "the repository has a model card, which stays as it is"))
    for file, path in files:
        if file.path == _CARD:
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise _wrong_card(f"it is not UTF-8: {error}") from error
    upload = _Upload(origin, files, skipped)
    operations = [CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=str(path)) for file, path in files]
    commit = api.create_commit(
        **where, revision=upload.branch, operations=operations, commit_message="Upload a model with mdl"
    )
    return upload.report(commit=commit.oid, url=commit.commit_url, private=facts.private)


def _wrong_card(why: str) -> UsageError:
    return UsageError(why, item=_CARD, hint="correct README.md, or the metadata between the lines '---' at its head")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub from writing to the terminal: mdl says how it went."""
    from huggingface_hub import utils

    bars: Any = utils  # its type hints do not export these
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    had_bars = not bars.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    bars.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if had_bars:
            bars.enable_progress_bars()


def _as_own_error(error: Exception, origin: HubOrigin, endpoint: Endpoint) -> MdlError:
    """The hub client's error as mdl's own. An upload that failed in one of its threads has the reason as its cause."""
    reason: BaseException = error
    while isinstance(reason, RuntimeError) and reason.__cause__ is not None:
        reason = reason.__cause__
    if isinstance(reason, MdlError):
        return reason
    status = getattr(getattr(reason, "response", None), "status_code", None)
    message = f"huggingface_hub: {one_line(reason)}"
    if status in (401, 403):
        return AuthError(message, item=origin.repository, hint=_advice_on_token(endpoint))
    if status in (404, 410):
        return NotFound(message, item=origin.repository, hint="check the name of the repository and its owner")
    return NetworkError(message, item=origin.repository, hint="run the same command again: it continues")


def _advice_on_token(endpoint: Endpoint) -> str:
    page = f"{endpoint.url}/settings/tokens"
    if endpoint.token is None:
        return f"set HF_TOKEN to a token that may write to this repository: {page}"
    return (
        f"a token was sent ({endpoint.token_from}), and may not write to this repository: make one that may at {page}"
    )
