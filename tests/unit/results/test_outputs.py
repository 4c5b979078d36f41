"""Outputs: the files in the answer of a job, in the forms that handlers and APIs use."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.errors import MdlError, NotFound, ProtocolError, Unsafe
from mdl.results.answers import judge
from mdl.results.outputs import Output, error_in, wanted_paths
from mdl.results.runpod import items_of, keyed_outputs

DATA = b"0123456789"
TEXT = base64.b64encode(DATA).decode()
URL = "https://bucket.example/p/results/j1/lora/a.safetensors?X-Amz-Signature=s"


LINKED = ("a.safetensors", None, URL, None)
APART = ("1/a.safetensors", None, URL, None)


def outputs_of(answer: Any, job: str, base: str = "") -> list[Output]:
    """The files in an answer; raises as a remote does if there is none."""
    judged = judge(answer, job, base)
    judged.raise_for_nothing(job)
    return list(judged.outputs)


def file_data(**more: Any) -> dict[str, Any]:
    return {"type": "file_data", "filename": "a.safetensors", "data": TEXT, "size": 10} | more


@each(
    ("answer", "rows"),
    [
        (file_data(), [("a.safetensors", DATA, "", 10)]),
        (file_data(filename="../../etc/x.bin"), [("x.bin", DATA, "", 10)]),
        (file_data(filename=r"C:\work\x.bin"), [("x.bin", DATA, "", 10)]),
        (file_data(data=TEXT.rstrip("=")), [("a.safetensors", DATA, "", 10)]),
        (file_data(data=f"{TEXT[:4]}\n{TEXT[4:]}"), [("a.safetensors", DATA, "", 10)]),
        (file_data(filename="", content_type="image/png"), [("j1.png", DATA, "", 10)]),
        ({"type": "redirect", "url": URL, "filename": "b.bin", "size": 7}, [("b.bin", None, URL, 7)]),
        ({"type": "url", "url": URL}, [("a.safetensors", None, URL, None)]),
        (URL, [("a.safetensors", None, URL, None)]),
        ({"output": {"result": [URL]}}, [("a.safetensors", None, URL, None)]),
        (
            {"download_items": [{"filename": "b.bin", "url": URL, "size": 7, "type": "lora"}], "zip_url": None},
            [("b.bin", None, URL, 7)],
        ),
        (
            {"download_items": [{"url": URL}], "zip_url": "https://h.example/all.zip"},
            [("a.safetensors", None, URL, None)],
        ),
        ({"zip_url": "https://h.example/all.zip"}, [("all.zip", None, "https://h.example/all.zip", None)]),
        ({"images": [{"filename": "x.png", "type": "s3_url", "data": URL}]}, [("x.png", None, URL, None)]),
        ({"url": URL, "samples": [file_data()]}, [APART, ("2/a.safetensors", DATA, "", 10)]),
        ({"url": URL, "status_url": "https://h.example/s", "webhook": "https://h.example/w"}, [LINKED]),
        ([URL, URL], [LINKED]),
        (file_data(data="", size=0), [("a.safetensors", b"", "", 0)]),
        (file_data(size="10"), [("a.safetensors", DATA, "", 10)]),
        ({"url": "", "files": [{"url": URL}]}, [("a.safetensors", None, URL, None)]),
        ({"url": URL, "_links": {"self": {"href": "/jobs/j1"}}}, [("a.safetensors", None, URL, None)]),
    ],
)
def test_forms(answer: Any, rows: list[tuple[str, bytes | None, str, int | None]]) -> None:
    """Bytes in base64, a URL in an object, a bare URL, and lists of them; a name never leads out of the folder. A URL
    that is empty, and the API's own of the job, are no files."""
    assert [(one.path.text, one.data, one.url, one.size) for one in outputs_of(answer, "j1")] == rows


@each(
    ("answer", "error", "words"),
    [
        (file_data(data="a$b="), ProtocolError, "not base64"),
        (file_data(data=TEXT[:9]), ProtocolError, "end is missing"),
        (file_data(data=TEXT[:8]), ProtocolError, "has 6 bytes of the file, and says that it has 10"),
        (file_data(size=11), ProtocolError, "has 10 bytes of the file, and says that it has 11"),
        (file_data(filename=".."), Unsafe, "names a file"),
        ({"type": "redirect", "url": "/download/j1"}, ProtocolError, "is not a URL"),
        ({"url": "javascript:alert(1)"}, ProtocolError, "is not a URL"),
        ({"status": "completed"}, NotFound, "names no file"),
        ({}, NotFound, "names no file"),
        (None, NotFound, "names no file"),
    ],
)
def test_refused(answer: Any, error: type[MdlError], words: str) -> None:
    """What is cut, lies about its size, leads nowhere or names nothing is an error that says so."""
    with pytest.raises(error, match=words):
        outputs_of(answer, "j1")


@pytest.mark.fault(402, 411)
def test_digests_and_places() -> None:
    """A digest in the answer is kept for the check of the bytes; a place on the API itself is a URL, if it is known
    where the answer came from."""
    [one] = outputs_of({"url": "/f/b.bin", "sha256": "AB" * 32}, "j1", base="https://h.example/results/j1")
    assert (one.url, str(one.digest)) == ("https://h.example/f/b.bin", f"sha256:{'ab' * 32}")
    [other] = outputs_of(file_data(sha256="not one"), "j1")
    assert other.digest is None


def test_two_without_urls_of_one_name() -> None:
    """Two inline files of one name are both kept; the same file told twice is one."""
    files = [file_data(), file_data(data="", size=0), file_data()]
    assert [(one.path.text, one.size) for one in outputs_of(files, "j1")] == [
        ("1/a.safetensors", 10),
        ("2/a.safetensors", 0),
    ]


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ({"files": [{"key": "p/results/j1/lora/a.bin", "size": 3}]}, [("lora/a.bin", 3, "p/results/j1/lora/a.bin")]),
        (["results/j1/b.bin", "results/j1/"], [("b.bin", None, "results/j1/b.bin")]),
        ({"files": []}, []),
        ({"files": 3}, []),
        (None, []),
    ],
)
def test_lists_of_keys(answer: Any, rows: list[tuple[str, int | None, str]]) -> None:
    """A worker's list of keys is files that can be asked for, under what stands behind the job in the key."""
    assert [(one.path.text, one.size, one.key) for one in keyed_outputs(answer, "j1")] == rows


@pytest.mark.fault(411)
def test_a_key_that_leads_out() -> None:
    """A key with dots is refused by name."""
    with pytest.raises(Unsafe, match="names a file"):
        keyed_outputs({"files": ["results/j1/../../x"]}, "j1")


def test_whose_rows_these_are() -> None:
    """The job of a bulk answer's row is in the path of its URL; a path that tells none is of the job that was asked."""
    rows = [{"url": URL}, {"url": URL.replace("/j1/", "/j2/")}, {"url": "https://h.example/x"}, {"filename": "y"}]
    assert items_of({"download_items": rows}, "j1") == [rows[0], rows[2], rows[3]]
    assert items_of({"download_items": None}, "j1") == []
    assert items_of("x", "j1") == []


def test_two_of_one_name_lie_apart() -> None:
    """Two files of one name are told apart by the folders of their URLs."""
    other = URL.replace("/lora/", "/samples/")
    found = outputs_of({"download_items": [{"filename": "a.safetensors", "url": url} for url in (URL, other)]}, "j1")
    assert [one.path.text for one in found] == ["lora/a.safetensors", "samples/a.safetensors"]


def test_neither_pictures_nor_logs_by_default() -> None:
    """Pictures and logs stay behind, unless there is nothing else."""
    assert wanted_paths(["s.png", "a.safetensors", "notes.txt"]) == {"a.safetensors", "notes.txt"}
    assert wanted_paths(["s.png", "notes.txt"]) == {"notes.txt"}
    assert wanted_paths(["s.png", "logs/run.txt"]) == {"s.png", "logs/run.txt"}


@each(
    ("error", "words"),
    [
        ("Process not found", "Process not found"),
        (
            '{"error_type": "<class \'OSError\'>", "error_message": "disk full", "error_traceback": "secret"}',
            "disk full",
        ),
        ({"error": {"message": "nested"}}, "nested"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ("<html><head><title>504 Gateway</title></head><body>x</body></html>", "504 Gateway"),
        ("see https://h.example/x?X-Amz-Signature=CANARY", "see https://h.example/x?…"),
        ("line\nbreak\x1b[31m", "line break\\x1b[31m"),
        ("{not json", "{not json"),
        (None, ""),
    ],
)
def test_words_of_an_error(error: Any, words: str) -> None:
    """An error is a text, JSON in a text, or an object; only its message is told."""
    assert error_in(error) == words


KEYS = ["url", "data", "filename", "size", "type", "output", "error", "image_b64", "href", "ok"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=40),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["url", "data", "filename", "size", "type", "output", "error", "image_b64", "href", "ok"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_any_answer(answer: Any) -> None:
    """Whatever an endpoint answers is files with safe names, or an error of mdl."""
    try:
        found = outputs_of(answer, "job")
    except MdlError:
        return
    assert found
    for one in found:
        assert [one.data is not None, one.url != "", one.error is not None].count(True) == 1
        assert one.data is None or one.size == len(one.data)
