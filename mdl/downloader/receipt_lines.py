"""Receipt lines: a receipt as one line of a record, and back. A line that makes no sense gives no receipt. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from mdl import crc_json
from mdl.errors import MdlError
from mdl.files import ACCESSES, VOUCHERS, HubFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.values import facts_of

AnyWord = TypeVar("AnyWord", bound=str)

VERSION = 2
"""Of the format. A line that a newer mdl wrote is not read."""
_REPO_TYPES = ("model", "dataset", "space")
_OPTIONAL = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("model", "path", "digest", "verified", "url", "asked", "endpoint", "access", "vouched_by"), (str,)
    ),
    **dict.fromkeys(("validator", "commit", "catalog"), _OPTIONAL),
    **dict.fromkeys(("suspect", "adopted"), (bool,)),
    **dict.fromkeys(("stamp", "prefixes"), (list,)),
    **dict.fromkeys(("hub", "replaced"), (list, type(None))),
}
"""The facts of a receipt, and of which type each may be."""
_OF_HUB = ("repo", "repo_type", "revision", "path", "branch")


def line_of(receipt: Receipt) -> bytes:
    """Return the line of a receipt, with its end."""
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
    """Return the line that says that the file at ``path`` has no receipt any more."""
    return crc_json.dumps({"mdl-receipt": VERSION, "path": path, "gone": True})


def receipt_of(facts: dict[str, Any]) -> Receipt | None:
    """Return the receipt with the ``facts`` of a line; None if they make no sense."""
    try:
        _check_types(facts)
        algorithm, _, digits = facts["digest"].partition(":")
        path = RelPath.of_repository(facts["path"])
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
            adopted=facts["adopted"],
            access=_one_of(ACCESSES, facts["access"]),
            vouched_by=_one_of(VOUCHERS, facts["vouched_by"]),
            replaced=Stamp(*facts["replaced"]) if facts["replaced"] else None,
            prefixes=tuple(facts["prefixes"]),
            hub=_hub_file(facts["hub"], facts["endpoint"], path) if facts["hub"] is not None else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError, MdlError):
        return None


def _check_types(facts: dict[str, Any]) -> None:
    """Raises `KeyError`, `ValueError` or `TypeError` unless each fact is of a type that it may have."""
    for key, types in _KINDS.items():
        if type(facts[key]) not in types:
            raise TypeError(f"{key} of a receipt is {facts[key]!r}")
    for number in (*facts["stamp"], *(facts["replaced"] or ())):
        if type(number) is not int:
            raise TypeError(f"{number!r} in the stamp of a receipt")
    for prefix in facts["prefixes"]:
        if type(prefix) is not str:
            raise TypeError(f"{prefix!r} in the prefix digests of a receipt")


def _one_of(words: Sequence[AnyWord], word: str) -> AnyWord:
    """Return the word among ``words`` that ``word`` is. Raises `ValueError` if it is none."""
    return words[words.index(word)]


def _interned(text: str | None) -> str | None:
    """Return a text that many files of a model have in common, which is kept once."""
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
