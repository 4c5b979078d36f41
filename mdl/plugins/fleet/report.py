"""Report: the answers of the nodes, as rows and one error. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mdl.bounds import LONGEST_QUOTE
from mdl.errors import Cancelled, MdlError, NetworkError, NotFound, ProtocolError, UsageError, whole_error
from mdl.formatting import listed
from mdl.paths import shown
from mdl.plugins.fleet.documents import STATUSES, NodeDocument, NodeModel, Sizes, read_document
from mdl.plugins.fleet.work import Answer
from mdl.reports import BaseReport
from mdl.values import value_class

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
        """The one error that stands for all: of the class of their one reason, or a `PartialFailure`."""
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
    if error.get("hint"):
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
