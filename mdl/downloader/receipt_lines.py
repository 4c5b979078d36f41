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
_AS_THEY_ARE = ("url", "asked", "validator", "suspect")
_OFTEN_THE_SAME = ("verified", "commit", "catalog")
"""Texts that many files of a model have in common: each is kept once."""
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
        stamp = facts["stamp"]
        prefixes = tuple(facts["prefixes"])
        replaced = facts["replaced"]
        kinds = [(facts[key], kinds) for key, kinds in _KINDS.items()]
        kinds += [(number, (int,)) for number in (*stamp, *(replaced or ()))] + [
            (prefix, (str,)) for prefix in prefixes
        ]
        if any(type(value) not in allowed for value, allowed in kinds):
            return None
        algorithm, _, text = facts["digest"].partition(":")
        path = RelPath.of_repository(facts["path"])
        same: dict[str, Any] = {key: facts[key] and sys.intern(facts[key]) for key in _OFTEN_THE_SAME}
        return Receipt(
            **{key: facts[key] for key in _AS_THEY_ARE},
            **same,
            model=sys.intern(RelPath.parse(facts["model"]).text),
            path=path,
            stamp=Stamp(*stamp),
            replaced=Stamp(*replaced) if replaced else None,
            digest=Digest.parse(algorithm, text),
            adopted=facts["adopted"] is True,
            access=facts["access"] if facts["access"] in ACCESSES else "unknown",
            vouched_by=facts["vouched_by"] if facts["vouched_by"] in VOUCHERS else "folder",
            prefixes=prefixes,
            hub=_hub_file(facts["hub"], facts["endpoint"], path) if facts["hub"] is not None else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError, MdlError):
        return None


def _hub_file(facts: Any, endpoint: str, file: RelPath) -> HubFile:
    repo, repo_type, revision, path, branch = facts
    if any(type(fact) is not str for fact in facts) or repo_type not in _REPO_TYPES:
        raise ValueError(f"{facts!r} is not a file of a hub")
    repo, repo_type, revision, branch, endpoint = map(sys.intern, (repo, repo_type, revision, branch, endpoint))
    path = file.text if path == file.text else RelPath.of_repository(path).text
    return HubFile(repo, repo_type, revision, path, branch, endpoint)
