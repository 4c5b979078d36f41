"""Report: what the mdl of each node printed with ``--json``, read and bounded, as it may come from anybody; and all
answers as rows and one error. Pure.

All kinds of documents (of get, verify and list) end in the same words for a model, which are `STATUSES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
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
STATUSES = ("corrupt", "missing", "partial", "changed", "unverified", "present")
"""What a node can say of a model, the worst first."""
_SCHEMAS = ("mdl.get/1", "mdl.verify/1", "mdl.list/1")
"""The documents of the commands that a node is asked for."""
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
class NodeDocument:
    """A document: its ``facts`` as they are, and what mdl reads of them: the models by their names, how many
    ``seconds`` the command took (0 if it does not say), the bytes that came, and the facts of an error."""

    facts: dict[str, Any]
    models: Mapping[str, NodeModel]
    seconds: float
    bytes_fetched: int
    error: Mapping[str, Any] | None


def read_document(text: str, sizes: Sizes) -> NodeDocument | None:
    """Read the last line of ``text`` that is a document of mdl; None if no line is one."""
    for line in reversed(text.splitlines()):
        if not line.startswith("{"):
            continue
        try:
            facts = parse_json(line)
        except ValueError:
            continue
        has_code = type(facts.get("exit_code")) is int
        if has_code and facts.get("schema") in _SCHEMAS and _is_flat(facts, _DEEPEST):
            return _read(facts, sizes)
    return None


def _read(facts: dict[str, Any], sizes: Sizes) -> NodeDocument:
    models = {}
    for model in _tables(facts.get("models")):
        name = str(model.get("name"))
        models[name] = _model(name, model, sizes)
    seconds = facts.get("seconds")
    if not isinstance(seconds, int | float) or not 0 < seconds < LARGEST_NUMBER:
        seconds = 0.0
    error = facts.get("error")
    if not isinstance(error, dict):
        error = None
    return NodeDocument(facts, models, round(seconds, 3), _count(facts.get("bytes_fetched")), error)


def _model(name: str, model: Mapping[str, Any], sizes: Sizes) -> NodeModel:
    """Read a model of a document of `mdl list`, of `mdl get`, or else of `mdl verify`."""
    status = model.get("status")
    if status not in STATUSES:
        status = "missing"
    files = _tables(model.get("files"))
    if "bytes_present" in model:
        return NodeModel(name, status, _count(model["bytes_present"]))
    if "status" in model:
        return NodeModel(name, status, _bytes_of_get(files))
    status = _status_of_files({str(file.get("status")) for file in files})
    return NodeModel(name, status, _bytes_of_verify(name, files, sizes))


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


_OF_FILES = {"corrupt": "corrupt", "missing": "partial", "changed": "changed", "unverified": "unverified"}
"""The status of a model by that of one of its files, the worst first."""


def _status_of_files(statuses: set[str]) -> str:
    """The status of a model, from those that `verify` found of its files."""
    if statuses <= {"missing"}:
        return "missing"
    for status, of_model in _OF_FILES.items():
        if status in statuses:
            return of_model
    return "present"


def _is_flat(value: Any, levels: int) -> bool:
    """Whether nothing is nested more deeply than that."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return levels > 0 and all(_is_flat(inner, levels - 1) for inner in value)


def _tables(value: Any) -> list[dict[str, Any]]:
    """The tables of a list, whatever else is in it."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]


def _count(value: Any) -> int:
    """A number of bytes; 0 for anything else."""
    return value if type(value) is int and 0 <= value <= LARGEST_NUMBER else 0


_NOT_THERE = (126, 127)
"""Exit codes of a shell: there is no such program, or it cannot be run."""
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
_REPLACES_HINT = (3, 5, 6, 75)
"""Exit codes for which that advice stands in place of the node's own hint. Its commands are for that node, and may name
a folder that is gone there. With 4 and 7 only the node knows the licence, or what lies in the way."""


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
        return min((model.status for model in self.models), key=STATUSES.index, default="failed")

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
        """The one error that sums up all failures: of the class of their one reason, or a `PartialFailure`."""
        errors = [node.error for node in self.failed if node.error]
        if not errors:
            return None
        if len(errors) == 1:
            return errors[0]
        statuses = Counter(node.status for node in self.failed)
        counts = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
        return whole_error(f"{len(errors):,} of {len(self.counted):,} nodes are not ok: {counts}", errors)


def node_report(answer: Answer, sizes: Sizes, names: Collection[str]) -> NodeReport:
    """Read a node's answer, of which the models ``names`` were asked. A model that a successful node does not mention
    is missing."""
    document = read_document(answer.out, sizes)
    if document is None:
        error = _error_without_document(answer)
        return NodeReport(
            answer.node, answer.exit_code, round(answer.seconds, 3), error=error, replaced_by=answer.replaced_by
        )
    models = {name: model for name, model in document.models.items() if name in names}
    if not answer.exit_code and document.error is None:
        for name in names:
            models.setdefault(name, NodeModel(name, "missing", 0))
    return NodeReport(
        answer.node,
        answer.exit_code,
        document.seconds or round(answer.seconds, 3),
        document.bytes_fetched,
        tuple(models.values()),
        _error_with_document(answer, document, models.values()),
        document.facts,
        answer.replaced_by,
    )


def _error_without_document(answer: Answer) -> MdlError:
    """Why a node that did not answer as mdl does is not well."""
    error = _error_of_call(answer)
    if error is not None:
        return error
    last_words = _last_line(answer.err)
    if answer.exit_code:
        return _error_of_code(answer.exit_code, last_words or _without_result(answer.exit_code), answer.node, _LOOK)
    last_words = last_words or _last_line(answer.out) or "nothing"
    message = f"it ended with 0, and no result of mdl; it said last: {last_words}"
    return ProtocolError(message, item=answer.node, hint=_LOOK)


def _error_with_document(answer: Answer, document: NodeDocument, models: Iterable[NodeModel]) -> MdlError | None:
    """Why a node is not well; None if it is."""
    error = _error_of_call(answer)
    if error is not None:
        return error
    code = answer.exit_code or 0
    if document.error is not None:
        return _error_of_mdl(answer.node, code, document.error)
    if code:
        return _error_of_code(code, _last_line(answer.err) or _without_result(code), answer.node, _LOOK)
    bad = [f"{model.name} is {model.status}" for model in models if not model.is_right]
    if bad:
        return NotFound(listed(bad), item=answer.node, hint="'mdl fleet get' downloads it")
    return None


def _error_of_call(answer: Answer) -> MdlError | None:
    """Why mdl could not be called on a node, or its answer cannot be read; None if it was called."""
    if answer.fault:
        return ProtocolError(answer.fault, item=answer.node, hint=_LOOK)
    if answer.exit_code is None:
        return NetworkError(_last_line(answer.err) or "no answer", item=answer.node, hint=answer.hint)
    if answer.exit_code in _NOT_THERE:
        last_words = _last_line(answer.err) or "there is no mdl"
        return UsageError(last_words, item=answer.node, hint="--mdl says how a node calls its mdl")
    return None


def _without_result(exit_code: int) -> str:
    return f"it ended with {exit_code}, and no result"


def _error_of_mdl(node: str, exit_code: int, error: Mapping[str, Any]) -> MdlError:
    """The error that a node's own mdl reported."""
    item = _quoted(node)
    if error.get("item"):
        item += f": {_quoted(error['item'])}"
    message = _quoted(error.get("message"))
    if error.get("hint") and exit_code not in _REPLACES_HINT:
        message += f"; {shown(node)} says: {_quoted(error['hint'])}"
    return _error_of_code(exit_code, message, item, _ADVICE.get(exit_code, _LOOK), str(error.get("code")))


def _error_of_code(exit_code: int, message: str, item: str, hint: str, code: str = "") -> MdlError:
    """The error of the class that has this exit code; of one of its kinds, if ``code`` names that. A node that ends
    with another one, or says that mdl itself is at fault, is not believed: it does not answer as mdl does."""
    if exit_code in (130, 143):
        return Cancelled(message, terminated=exit_code == 143).as_error().but(item=item, hint=hint)
    kinds = {kind.exit_code: kind for kind in MdlError.__subclasses__()}
    kind = kinds.get(exit_code, ProtocolError)
    special_kinds = {special.code: special for special in kind.__subclasses__()}
    kind = special_kinds.get(code, kind)
    return kind(message).but(item=item, hint=hint)


def _last_line(text: str) -> str:
    """The last line that is not blank, quoted; '' if there is none."""
    lines = text.strip().splitlines()
    return _quoted(lines[-1]) if lines else ""


def _quoted(words: object) -> str:
    """Words of a node, in one line that a terminal can show, cut."""
    return shown(" ".join(str(words).split()))[:LONGEST_QUOTE]
