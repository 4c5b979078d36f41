"""Documents: what the mdl of a node printed with ``--json``, read and bounded: it may come from anybody. Pure.

All kinds of documents (of get, verify and list) end in the same words for a model, which are `STATUSES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mdl.bounds import LARGEST_NUMBER, parse_json
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
