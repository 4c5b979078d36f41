"""What is fuzzed of the plug-ins: what they read from outside."""

from __future__ import annotations

import json
from collections.abc import Callable

from fuzz.targets import check_safe, placed, text_of
from mdl.errors import MdlError
from mdl.paths import RelPath, refuse_twins
from mdl.plugins.bundle.reading import open_bundle
from mdl.plugins.fleet.report import FleetReport, node_report
from mdl.plugins.fleet.work import Answer
from mdl.plugins.mirror.marker import Marker


def bundle(data: bytes) -> None:
    """The members of a bundle have safe paths, none twice, and are all there before any is used."""
    with open_bundle(placed("b.tar", data), lambda _done: None) as found:
        assert sum(file.size or 0 for _, file in found.files.values()) <= len(data)
        for place, (name, file) in found.files.items():
            check_safe(RelPath.parse(place))
            assert place in found.sums
            assert file.digest
            assert name in {model.name for model in found.models}
        refuse_twins(map(RelPath.parse, found.files))


def node(data: bytes) -> None:
    """What a node says is a row that can be shown as JSON, and never a fault of mdl."""
    first, _, out = text_of(data).partition("\n")
    code = int(first) % 256 if first.isascii() and first.isdigit() and len(first) < 9 else 0
    found = node_report(Answer("n1", code, out, "words"), {("m", "a"): 5}, ["m"])
    assert found.error is None or found.error.exit_code != MdlError.exit_code
    report = FleetReport("ssh", "get", 1, (found,))
    json.dumps([found.document, found.seconds, found.bytes, found.status, report.exit_code], allow_nan=False)


def marker(data: bytes) -> None:
    """A mirror's marker stays the same if it is written and read again."""
    found = Marker.from_json(data, "s3://b/m")
    assert Marker.from_json(found.to_json(), "s3://b/m") == found


TARGETS: dict[str, Callable[[bytes], None]] = {one.__name__: one for one in (bundle, marker, node)}
