"""Report: the answers of the nodes, as rows and one error. Pure.

A node's own JSON document says what it has of each model; all kinds of documents (get, verify, list) end in the same
words: ``present``, ``partial``, ``missing``, ``corrupt``, ``changed`` or ``unverified``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mdl.bounds import LARGEST_NUMBER, LONGEST_QUOTE, parse_json
from mdl.errors import Cancelled, MdlError, NetworkError, NotFound, ProtocolError, UsageError, whole_error
from mdl.formatting import listed
from mdl.paths import shown
from mdl.plugins.fleet.work import Answer
from mdl.reports import BaseReport
from mdl.values import value_class

Sizes = Mapping[tuple[str, str], int]
"""The bytes of each file that is locked, by the name of its model and its path."""
_NOT_THERE = (126, 127)
"""Exit codes of a shell: there is no such program, or it cannot be run."""
_WORST = ("corrupt", "missing", "partial", "changed", "unverified", "present")
"""What a node can say of a model, the worst first."""
_SCHEMAS = ("mdl.get/1", "mdl.verify/1", "mdl.list/1")
"""The documents of the commands that a node is asked for."""
_LOOK = "look at the log of that node, and at its version of mdl"
_ADVICE = {
    3: "'mdl fleet get' downloads what is missing; 'mdl list' shows which names there are",
    4: "a node has a token of its own: set HF_TOKEN there, and accept the licence with that account",
    5: "run the same command again later; what was fetched is kept on the nodes",
    6: "'mdl fleet verify --repair' fetches what is wrong there",
    7: "look at the disk of that node",
    75: "run the same command again; what was fetched is kept on the nodes",
}
"""What to do about a node that ended with this code."""
_DEEPEST = 20
"""The most levels that a document of mdl has; it becomes a part of another document."""


@value_class
class NodeModel:
    """What a node has of one model: its ``status``, and how many ``bytes`` of it are right."""

    name: str
    status: str
    bytes: int

    @property
    def is_right(self) -> bool:
        """Whether all of it is there, and nothing of it is wrong."""
        return self.status in ("present", "unverified")


@value_class
class NodeReport:
    """How one node did, in ``seconds``. ``exit_code`` is None if it did not answer. ``error`` is None if all is well.
    ``document`` is what its mdl printed with ``--json``. The failure of a node that was ``replaced_by`` another one
    does not count."""

    node: str
    exit_code: int | None
    seconds: float = 0.0
    bytes_fetched: int = 0
    models: tuple[NodeModel, ...] = ()
    error: MdlError | None = None
    document: dict[str, Any] | None = None
    replaced_by: str = ""

    @property
    def status(self) -> str:
        """The worst of its models; ``no answer``, or ``failed`` if it reports none."""
        if self.exit_code is None and not isinstance(self.error, ProtocolError):
            return "no answer"
        statuses = {model.status for model in self.models}
        for status in _WORST:
            if status in statuses:
                return status
        return "failed"

    @property
    def bytes(self) -> int:
        """The right bytes of all models."""
        return sum(model.bytes for model in self.models)


@value_class
class FleetReport(BaseReport):
    """How a command went on every node of ``engine``, in ``seconds``. ``asked`` is how many nodes were to do it.
    ``left_out`` names the files and models of whose URLs something was not sent because it may be a secret."""

    engine: str
    task: str
    asked: int
    nodes: tuple[NodeReport, ...] = ()
    seconds: float = 0.0
    left_out: Sequence[str] = ()

    @property
    def counted(self) -> tuple[NodeReport, ...]:
        """The nodes that no other one replaced."""
        return tuple(node for node in self.nodes if not node.replaced_by)

    @property
    def failed(self) -> tuple[NodeReport, ...]:
        """Those of them that failed."""
        return tuple(node for node in self.counted if node.error)

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all: of the class of their one reason, or a `PartialFailure`."""
        errors = [node.error for node in self.failed if node.error]
        if not errors:
            return None
        if len(errors) == 1:
            return errors[0]
        statuses = Counter(node.status for node in self.failed)
        counts = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
        return whole_error(f"{len(errors):,} of {len(self.counted):,} nodes are not well: {counts}", errors)


def node_report(answer: Answer, sizes: Sizes, names: Collection[str]) -> NodeReport:
    """Read a node's answer, of which the models ``names`` were asked. A model that a successful node does not mention
    is missing."""
    document = _document(answer.out)
    models: dict[str, NodeModel] = {}
    if document:
        for model in _models(document, sizes):
            if model.name in names:
                models[model.name] = model
        if not answer.exit_code and not document.get("error"):
            for name in names:
                models.setdefault(name, NodeModel(name, "missing", 0))
    return NodeReport(
        answer.node,
        answer.exit_code,
        _seconds(answer, document),
        _count(document.get("bytes_fetched")) if document else 0,
        tuple(models.values()),
        _error(answer, document, list(models.values())),
        document,
        answer.replaced_by,
    )


# The document that a node printed.


def _document(text: str) -> dict[str, Any] | None:
    """The last line that is a document of mdl."""
    for line in reversed(text.splitlines()):
        if not line.startswith("{"):
            continue
        try:
            document = parse_json(line)
        except ValueError:
            continue
        is_ours = document.get("schema") in _SCHEMAS and type(document.get("exit_code")) is int
        if is_ours and _is_flat(document, _DEEPEST):
            return dict(document)
    return None


def _is_flat(value: Any, levels: int) -> bool:
    """Whether nothing is nested more deeply than that."""
    if levels <= 0:
        return False
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    return all(_is_flat(part, levels - 1) for part in inner)


def _seconds(answer: Answer, document: Mapping[str, Any] | None) -> float:
    """How long the node's own mdl took, if it says so; else how long its answer took."""
    seconds = document.get("seconds") if document else None
    if isinstance(seconds, int | float) and 0 < seconds < LARGEST_NUMBER:
        return round(seconds, 3)
    return round(answer.seconds, 3)


def _models(document: Mapping[str, Any], sizes: Sizes) -> Iterator[NodeModel]:
    """Read each model of a document: of `mdl list`, of `mdl get`, or of `mdl verify`."""
    for model in _tables(document.get("models")):
        name = str(model.get("name"))
        files = _tables(model.get("files"))
        if "bytes_present" in model:
            yield NodeModel(name, _status(model.get("status")), _count(model["bytes_present"]))
        elif "status" in model:
            yield NodeModel(name, _status(model["status"]), _bytes_of_get(files))
        else:
            statuses = {str(file.get("status")) for file in files}
            yield NodeModel(name, _verified(statuses), _bytes_of_verify(name, files, sizes))


def _bytes_of_get(files: Iterable[Mapping[str, Any]]) -> int:
    total = 0
    for file in files:
        if file.get("action") in ("fetched", "kept", "linked"):
            total += _count(file.get("size"))
    return total


def _bytes_of_verify(model: str, files: Iterable[Mapping[str, Any]], sizes: Sizes) -> int:
    """The sizes are those of the lock: a document of `mdl verify` has none."""
    total = 0
    for file in files:
        if file.get("status") in ("ok", "unverified"):
            total += sizes.get((model, str(file.get("path"))), 0)
    return total


def _status(value: Any) -> str:
    return str(value) if value in _WORST else "missing"


def _verified(statuses: set[str]) -> str:
    """The status of a model, from those that `verify` found of its files."""
    if not statuses or statuses == {"missing"}:
        return "missing"
    if "corrupt" in statuses:
        return "corrupt"
    if "missing" in statuses:
        return "partial"
    for status in ("changed", "unverified"):
        if status in statuses:
            return status
    return "present"


# The error of a node.


def _error(answer: Answer, document: Mapping[str, Any] | None, models: Sequence[NodeModel]) -> MdlError | None:
    """Why the node is not well; None if it is."""
    if answer.fault:
        return ProtocolError(answer.fault, item=answer.node, hint=_LOOK)
    last_words = _last_line(answer.err)
    if answer.exit_code is None:
        return NetworkError(last_words or "no answer", item=answer.node, hint=answer.hint)
    if answer.exit_code in _NOT_THERE:
        return UsageError(last_words or "there is no mdl", item=answer.node, hint="--mdl says how a node calls its mdl")
    error = document.get("error") if document else None
    if isinstance(error, dict):
        return _error_of_mdl(answer.node, answer.exit_code, error)
    if answer.exit_code:
        message = last_words or f"it ended with {answer.exit_code}, and no result"
        return _of_code(answer.exit_code, message, answer.node, _LOOK)
    if document is None:
        last = last_words or _last_line(answer.out) or "nothing"
        message = f"it ended with 0, and no result of mdl; it said last: {last}"
        return ProtocolError(message, item=answer.node, hint=_LOOK)
    bad = [f"{model.name} is {model.status}" for model in models if not model.is_right]
    if bad:
        return NotFound(listed(bad), item=answer.node, hint="'mdl fleet get' downloads it")
    return None


def _error_of_mdl(node: str, exit_code: int, error: Mapping[str, Any]) -> MdlError:
    """The error that a node's own mdl reported."""
    item = _quoted(node)
    if error.get("item"):
        item += f": {_quoted(error['item'])}"
    message = _quoted(error.get("message"))
    if error.get("hint"):
        message += f"; {shown(node)} says: {_quoted(error['hint'])}"
    return _of_code(exit_code, message, item, _ADVICE.get(exit_code, _LOOK), str(error.get("code")))


def _last_line(text: str) -> str:
    """The last line that is not blank, quoted; '' if there is none."""
    for line in reversed(text.splitlines()):
        if line.strip():
            return _quoted(line)
    return ""


def _quoted(words: object) -> str:
    """Words of a node, in one line that a terminal can show, cut."""
    return shown(" ".join(str(words).split()))[:LONGEST_QUOTE]


def _of_code(exit_code: int, message: str, item: str, hint: str | None, code: str = "") -> MdlError:
    """The error of the class that has this exit code; of one of its kinds, if ``code`` names that. A node that ends
    with another one, or says that mdl itself is at fault, is not believed: it does not answer as mdl does."""
    if exit_code in (130, 143):
        return Cancelled(message, terminated=exit_code == 143).as_error().but(item=item, hint=hint)
    kinds = {kind.exit_code: kind for kind in MdlError.__subclasses__()}
    kind = kinds.get(exit_code, ProtocolError)
    for special in kind.__subclasses__():
        if special.code == code:
            kind = special
            break
    return kind(message).but(item=item, hint=hint)


def _tables(value: Any) -> list[dict[str, Any]]:
    """The tables of a list, whatever else is in it."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_NUMBER else 0
