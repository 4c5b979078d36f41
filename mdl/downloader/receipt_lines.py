"""Receipt lines: a receipt as one line of a record, and back. A line that makes no sense gives no receipt. Pure."""

from __future__ import annotations

import sys
from typing import Any

from mdl import crc_json
from mdl.errors import MdlError
from mdl.files import ACCESSES, VOUCHERS, HubFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.values import facts_of

VERSION = 2
"""Of the format. A line that a newer mdl wrote is not read."""
_REPO_TYPES = ("model", "dataset", "space")
_OPTIONAL = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "path", "digest", "verified", "url", "asked", "endpoint"), (str,)),
    **dict.fromkeys(("validator", "commit", "catalog"), _OPTIONAL),
    "suspect": (bool,),
    "hub": (list, type(None)),
}
_OF_HUB = ("repo", "repo_type", "revision", "path", "branch")
_DEFAULTS: dict[str, Any] = {
    "asked": "",
    "adopted": False,
    "prefixes": (),
    "endpoint": "",
    "access": "unknown",
    "vouched_by": "folder",
    **dict.fromkeys(("hub", "catalog", "replaced")),
}
"""The facts that receipts of earlier versions lack."""


def line_of(receipt: Receipt) -> bytes:
    """The line of a receipt, with its end."""
    facts = {
        "mdl-receipt": VERSION,
        **facts_of(receipt),
        "path": receipt.path.text,
        "stamp": list(facts_of(receipt.stamp).values()),
        "digest": str(receipt.digest),
        "hub": [getattr(receipt.hub, name) for name in _OF_HUB] if receipt.hub else None,
        "endpoint": receipt.hub.endpoint if receipt.hub else "",
        "replaced": list(facts_of(receipt.replaced).values()) if receipt.replaced else None,
    }
    return crc_json.dumps(facts)


def gone_line(path: str) -> bytes:
    """The line that says that the file at ``path`` has no receipt any more."""
    return crc_json.dumps({"mdl-receipt": VERSION, "path": path, "gone": True})


def receipt_of(facts: dict[str, Any]) -> Receipt | None:
    """The receipt with the ``facts`` of a line; None if they make no sense."""
    try:
        facts = _DEFAULTS | facts
        if not _has_right_kinds(facts):
            return None
        algorithm, _, digits = facts["digest"].partition(":")
        path = RelPath.of_repository(facts["path"])
        hub = None
        if facts["hub"] is not None:
            hub = _hub_file(facts["hub"], facts["endpoint"], path)
        access = facts["access"]
        vouched_by = facts["vouched_by"]
        return Receipt(
            model=sys.intern(RelPath.parse(facts["model"]).text),
            path=path,
            stamp=Stamp(*facts["stamp"]),
            digest=Digest.parse(algorithm, digits),
            verified=sys.intern(facts["verified"]),
            url=facts["url"],
            asked=facts["asked"],
            validator=facts["validator"],
            commit=_interned(facts["commit"]),
            catalog=_interned(facts["catalog"]),
            suspect=facts["suspect"],
            adopted=facts["adopted"] is True,
            access=access if access in ACCESSES else "unknown",
            vouched_by=vouched_by if vouched_by in VOUCHERS else "folder",
            replaced=Stamp(*facts["replaced"]) if facts["replaced"] else None,
            prefixes=tuple(facts["prefixes"]),
            hub=hub,
        )
    except (KeyError, ValueError, TypeError, AttributeError, MdlError):
        return None


def _has_right_kinds(facts: dict[str, Any]) -> bool:
    """Whether each fact is of the kind that a receipt has there. Raises `KeyError`, `TypeError`."""
    for key, kinds in _KINDS.items():
        if type(facts[key]) not in kinds:
            return False
    for number in (*facts["stamp"], *(facts["replaced"] or ())):
        if type(number) is not int:
            return False
    return all(type(prefix) is str for prefix in facts["prefixes"])


def _interned(text: str | None) -> str | None:
    """A text that many files of a model have in common, which is kept once."""
    return None if text is None else sys.intern(text)


def _hub_file(facts: Any, endpoint: str, file: RelPath) -> HubFile:
    repo, repo_type, revision, path, branch = facts
    if any(type(fact) is not str for fact in facts) or repo_type not in _REPO_TYPES:
        raise ValueError(f"{facts!r} is not a file of a hub")
    if path != file.text:
        path = RelPath.of_repository(path).text
    return HubFile(
        repo=sys.intern(repo),
        repo_type=sys.intern(repo_type),
        revision=sys.intern(revision),
        path=path,
        branch=sys.intern(branch),
        endpoint=sys.intern(endpoint),
    )
