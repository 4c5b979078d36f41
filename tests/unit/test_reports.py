"""What failed, summed up by model and reason."""

from __future__ import annotations

from pathlib import Path

from mdl.errors import NetworkError, NotFound
from mdl.reports import FileReport, ModelReport, Report, summed_up

REFUSED = "no connection to 127.0.0.1:9: Connection refused"


def failed(path: str, error: NetworkError | NotFound) -> FileReport:
    return FileReport(path, 10, None, "failed", "none", error=error)


def test_many_files_of_one_reason() -> None:
    """They have one message, with how many of how many, three names and one hint; the error of the whole is that."""
    files = tuple(failed(f"part-{number:04}", NetworkError(REFUSED, hint="later")) for number in range(401))
    report = Report(models=(ModelReport("many", Path("/m"), "missing", files),))
    [summary] = summed_up(report.failed)
    assert summary.item == "many"
    assert summary.message == f"401 of 401 files: {REFUSED} (part-0000, part-0001, part-0002 and 398 more)"
    assert summary.hint == "later"
    error = report.error
    assert error is not None
    assert (error.exit_code, error.item, error.message, error.hint) == (5, "many", summary.message, "later")
    assert len(error.errors) == 401


def test_several_reasons() -> None:
    """Each has its own message, in the words of which the error of the whole tells."""
    files = (failed("a", NetworkError(REFUSED)), failed("b", NetworkError(REFUSED)), failed("c", NotFound("404")))
    kept = FileReport("d", 10, None, "kept", "sha256")
    report = Report(models=(ModelReport("m", Path("/m"), "partial", (*files, kept)),))
    messages = [(summary.item, summary.message) for summary in summed_up(report.failed)]
    assert messages == [("m", f"2 of 4 files: {REFUSED} (a, b)"), ("m/c", "404")]
    error = report.error
    assert error is not None
    assert error.exit_code == 10
    assert error.message == f"3 of 4 failed: m: 2 of 4 files: {REFUSED} (a, b); m/c: 404"


def test_models_are_not_mixed() -> None:
    """The same reason in two models is two messages; a model that failed as a whole has no files in its message."""
    models = [ModelReport(name, Path("/m"), "missing", (failed("a", NetworkError(REFUSED)),)) for name in "xy"]
    lost = ModelReport("z", Path("/m"), "missing", error=NetworkError(REFUSED))
    report = Report(models=(*models, lost))
    assert [summary.item for summary in summed_up(report.failed)] == ["z", "x/a", "y/a"]
    assert [item for item, _ in report.failures] == ["z", "x/a", "y/a"]
