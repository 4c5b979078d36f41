"""Answers: which values of an answer are files, which are not, and what the worker says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.cases import each

from mdl.errors import NotFound, ProtocolError
from mdl.results.answer_keys import key_meaning
from mdl.results.answers import judge

B = "https://bucket.example/f"
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


FILES: list[tuple[Any, list[tuple[str, bytes | str]]]] = [
    # links
    ({"weights": f"{B}/w.safetensors", "homepage": "https://example.com"}, [("w.safetensors", f"{B}/w.safetensors")]),
    ({"url": f"{B}/abc"}, [("abc", f"{B}/abc")]),
    ({"homepage": {"url": "https://h.example/x"}, "lora_url": f"{B}/l"}, [("l", f"{B}/l")]),
    ({"homepage": f"{B}/w.safetensors"}, [("w.safetensors", f"{B}/w.safetensors")]),
    ({"wandb_model_url": "https://wandb.example/t/r", "modelUrl": f"{B}/m"}, [("m", f"{B}/m")]),
    ({"files": {"w.safetensors": f"{B}/d/1", "0": f"{B}/d/2"}}, [("w.safetensors", f"{B}/d/1"), ("2", f"{B}/d/2")]),
    ({"message": f"see {B}/w.safetensors", "downloadurl": f"{B}/w"}, [("w", f"{B}/w")]),
    (
        {"name": "My model", "url": f"{B}/w.safetensors", "lora": f"{B}/l.bin"},
        [("w.safetensors", f"{B}/w.safetensors"), ("l.bin", f"{B}/l.bin")],
    ),
    ({"foo": {"href": f"{B}/x"}, "links": [f"{B}/y"], "bar": {"url": f"{B}/z"}}, [("z", f"{B}/z")]),
    ({"download_links": [f"{B}/y"], "link": f"{B}/z"}, [("z", f"{B}/z"), ("y", f"{B}/y")]),
    # what the job was asked with is no result
    (
        {"input": {"images": f"{B}/data.zip", "name": "d.zip", "url": f"{B}/d"}, "output": {"url": f"{B}/w.bin"}},
        [("w.bin", f"{B}/w.bin")],
    ),
    ({"input_image": f"data:image/png;base64,{coded(PNG)}", "model": f"{B}/w.bin"}, [("w.bin", f"{B}/w.bin")]),
    # a text is a text
    ({"files": [{"name": "note.txt", "content": "abcd"}]}, [("note.txt", b"abcd")]),
    ({"files": [{"name": "n.txt", "content": "YQ==", "encoding": "base64"}]}, [("n.txt", b"a")]),
    (
        {"files": [{"name": "n.json", "content": '{"url": "https://h.example/x.bin"}'}]},
        [("n.json", b'{"url": "https://h.example/x.bin"}')],
    ),
    # base64 that is said plainly
    ({"filename": "w.safetensors", "blob_b64": coded(SAFETENSORS)}, [("w.safetensors", SAFETENSORS)]),
    ({"weights_b64": coded(SAFETENSORS)}, [("weights.safetensors", SAFETENSORS)]),
    ({"image_base64": coded(PNG)}, [("image.png", PNG)]),
    ({"imageBase64": [coded(PNG)]}, [("image.png", PNG)]),
    ({"preview": {"base64": coded(PNG)}}, [("preview.png", PNG)]),
    ({"preview": f"data:image/png;base64,{coded(PNG)}"}, [("preview.png", PNG)]),
    ({"name": "p.png", "data": f"data:image/png;base64,{coded(PNG)}"}, [("p.png", PNG)]),
    ({"filename": "p.png", "type": "base64", "data": coded(PNG)}, [("p.png", PNG)]),
    ({"type": "base64", "image": coded(PNG)}, [("image.png", PNG)]),
    # a path on the worker's disk names a file
    ({"path": "/workspace/out/w.safetensors", "data": coded(SAFETENSORS)}, [("w.safetensors", SAFETENSORS)]),
    ({"file_path": "out\\p.png", "base64": coded(PNG)}, [("p.png", PNG)]),
    ({"path": "out/notes.txt", "content": "abcd"}, [("notes.txt", b"abcd")]),
    ({"path": "out/w.safetensors", "url": f"{B}/d/1"}, [("w.safetensors", f"{B}/d/1")]),
    ({"path": "/v1/jobs", "data": "done"}, []),
    # relative paths of several files are those of a folder; a worker's own folders are not
    (
        [
            {"path": "out/model_index.json", "url": f"{B}/d/1"},
            {"path": "out/unet/config.json", "url": f"{B}/d/2"},
            {"path": "out/vae/config.json", "url": f"{B}/d/3"},
        ],
        [
            ("model_index.json", f"{B}/d/1"),
            ("unet/config.json", f"{B}/d/2"),
            ("vae/config.json", f"{B}/d/3"),
        ],
    ),
    (
        [{"path": "/tmp/a1/w.bin", "url": f"{B}/d/1"}, {"path": "/tmp/b2/x.bin", "url": f"{B}/d/2"}],
        [("w.bin", f"{B}/d/1"), ("x.bin", f"{B}/d/2")],
    ),
    (
        [{"path": "a/../../w.bin", "url": f"{B}/d/1"}, {"path": "b/x.bin", "url": f"{B}/d/2"}],
        [("w.bin", f"{B}/d/1"), ("b/x.bin", f"{B}/d/2")],
    ),
    (
        {"files": {"w.safetensors": f"{B}/d/1?s=1", "config.json": f"{B}/d/2?s=2"}},
        [("w.safetensors", f"{B}/d/1?s=1"), ("config.json", f"{B}/d/2?s=2")],
    ),
    # one name
    (
        {"urls": ["https://b.example/k/e1/w.safetensors", "https://b.example/k/e2/w.safetensors"]},
        [
            ("e1/w.safetensors", "https://b.example/k/e1/w.safetensors"),
            ("e2/w.safetensors", "https://b.example/k/e2/w.safetensors"),
        ],
    ),
    (
        [f"{B}/a/1/w.bin", f"{B}/a/2/w.bin", f"{B}/b/1/w.bin"],
        [("a/1/w.bin", f"{B}/a/1/w.bin"), ("a/2/w.bin", f"{B}/a/2/w.bin"), ("b/1/w.bin", f"{B}/b/1/w.bin")],
    ),
    (
        [f"{B}/e1/lora/w.bin", f"{B}/e2/lora/w.bin"],
        [("e1/lora/w.bin", f"{B}/e1/lora/w.bin"), ("e2/lora/w.bin", f"{B}/e2/lora/w.bin")],
    ),
    (
        [f"{B}/w.bin", f"{B}/e1/w.bin"],
        [("f/w.bin", f"{B}/w.bin"), ("e1/w.bin", f"{B}/e1/w.bin")],
    ),
    ([f"{B}/w.bin?v=1", f"{B}/w.bin?v=2"], [("1/w.bin", f"{B}/w.bin?v=1"), ("2/w.bin", f"{B}/w.bin?v=2")]),
    ([f"{B}/w.bin?v=1", f"{B}/w.bin?v=1"], [("w.bin", f"{B}/w.bin?v=1")]),
    ({"url": f"{B}/k", "files": [{"name": "w.bin", "url": f"{B}/k"}]}, [("w.bin", f"{B}/k")]),
    (
        [{"name": "w.bin", "url": f"{B}/e1/blob"}, {"name": "w.bin", "url": f"{B}/e2/blob"}],
        [("e1/w.bin", f"{B}/e1/blob"), ("e2/w.bin", f"{B}/e2/blob")],
    ),
    (
        [{"name": "w.bin", "url": f"{B}/x"}, {"name": "W.bin", "url": f"{B}/y"}],
        [("x/w.bin", f"{B}/x"), ("y/W.bin", f"{B}/y")],
    ),
]


@each(
    "wrapped",
    [
        lambda answer: answer,
        lambda answer: {"result": answer},
        lambda answer: [answer],
        json.dumps,
        lambda answer: {"body": json.dumps(answer)},
    ],
    ids=["plain", "nested", "list", "text", "body"],
)
@each(("answer", "files"), FILES)
def test_files(answer: Any, files: list[tuple[str, bytes | str]], wrapped: Any) -> None:
    """A file is what says that it is one; wherever it stands, and also in JSON in a text."""
    judged = judge(wrapped(answer), "j1")
    assert [(output.path.text, output.url or output.data) for output in judged.outputs] == files


@each(
    ("answer", "ignored"),
    [
        ({"homepage": "https://example.com"}, ["homepage (https://example.com)"]),
        ({"zip_url": "https://example.com/"}, ["zip_url (https://example.com/)"]),
        ({"run": {"dashboard_url": "https://t.example/p/1?token=s"}}, ["run.dashboard_url (https://t.example/p/1)"]),
        ({"model_page": "https://h.example/m/1"}, ["model_page (https://h.example/m/1)"]),
        ({"hf_repo": "https://hub.example/org/m"}, ["hf_repo (https://hub.example/org/m)"]),
        ({"info": "https://h.example/x"}, ["info (https://h.example/x)"]),
        ({"hub_url": "https://hub.example/org/m"}, ["hub_url (https://hub.example/org/m)"]),
        ({"lora_path": "/volume/out/l.safetensors"}, ["lora_path (/volume/out/l.safetensors)"]),
        ({"docs": {"url": "https://u:p@h.example/x"}}, ["docs.url (https://h.example/x)"]),
        ({"homepage": "https://h.example/index.html"}, ["homepage (https://h.example/index.html)"]),
        ({"report": "https://h.example/show.php"}, ["report (https://h.example/show.php)"]),
    ],
)
def test_links_that_are_no_files(answer: Any, ignored: list[str]) -> None:
    """A link that is no file is ignored with a word: its key, its host and its path, and never its query."""
    judged = judge(answer, "j1")
    assert not judged.outputs
    assert list(map(str, judged.ignored)) == ignored


@each(
    ("key", "meaning"),
    [
        ("downloadUrl", "output"),
        ("zip_url", "output"),
        ("LoRAs", "output"),
        ("report_file", "output"),
        ("model_page", "page"),
        ("docsUrl", "page"),
        ("mlflow_artifact", "page"),
        ("status_url", "page"),
        ("presigned-url", "place"),
        ("fileurl", "output"),
        ("profile", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_a_key_says(key: str, meaning: str) -> None:
    """Whole words of a key count, and the last one that says something decides."""
    assert key_meaning(key) == meaning


def test_one_bad_file_hinders_no_other() -> None:
    """Weights in a text that no field calls base64, a size that lies and a name that leads out are refused alone."""
    answer = {
        "files": [
            {"name": "w.safetensors", "content": "abcd"},
            {"name": "x.bin", "data": "abcd", "size": 7},
            {"name": "..", "data": "abcd"},
            {"name": "note.txt", "content": "abcd"},
        ]
    }
    judged = judge(answer, "j1")
    assert [output.error.exit_code if output.error else 0 for output in judged.outputs] == [6, 6, 11, 0]
    first = judged.outputs[0].error
    assert isinstance(first, ProtocolError)
    assert '"encoding": "base64"' in str(first.hint)
    judged.raise_for_nothing("j1")


@each(
    ("answer", "words"),
    [
        ("CUDA out of memory", "the worker says: CUDA out of memory"),
        ("done: https://h.example/w.bin?sig=CANARY", r"the worker says: done: https://h\.example/w\.bin\?…"),
        ({"result": {"ok": False, "reason": {"error": "no space left"}}}, "the worker says: no space left"),
        ({"status": "error", "detail": [{"msg": "bad input"}]}, "the worker says: bad input"),
        ({"success": False, "note": 3}, "the worker says: it failed, and does not say why"),
        ({"message": "saved nothing"}, "the worker says: saved nothing"),
        ({"out": {"error": {"message": f"no access to {B}/x?sig=CANARY with KEY-CANARY"}}}, r"x\?… with \*\*\*"),
        ({"loss": 0.1, "run": {"steps": 3}}, "its keys are loss, run, run.steps"),
        ({"model": "s3://b/w.bin"}, r"web address, but model \(s3://b/w.bin\); its keys are model"),
        ({f"k{number}": 0 for number in range(12)}, "k9 and 2 more"),
    ],
)
def test_words_of_an_answer_without_files(answer: Any, words: str) -> None:
    """Where no file is, the worker's own words are told, wherever they stand; without any, the keys that there are."""
    with pytest.raises(NotFound, match=words) as caught:
        judge(answer, "j1").raise_for_nothing("j1", ["KEY-CANARY"])
    assert "CANARY" not in str(caught.value)


@each(
    ("place", "reference"),
    [
        ("https://huggingface.co/org/repo", "hf:org/repo"),
        ("https://huggingface.co/org/repo/tree/main", "hf:org/repo@main"),
        ("https://huggingface.co/org/repo/blob/main/a.safetensors", "hf:org/repo@main/a.safetensors"),
        ("https://huggingface.co/datasets/org/data", "hf:datasets/org/data"),
        ("https://huggingface.co/org/repo/blob/main/x%27%3Bid%7Csh.bin", "hf:org/repo@main/x';id|sh.bin"),
        ("hf:org/repo", "hf:org/repo"),
    ],
)
def test_a_model_on_the_hub(place: str, reference: str) -> None:
    """A page of the hub is no file, under whichever key: the hint is the command that fetches what it shows, in mdl's
    own words alone."""
    for key in ("model_url", "model", "hub_model_id", "repo_url"):
        with pytest.raises(NotFound) as caught:
            judge({key: place, "status": "COMPLETED"}, "j1").raise_for_nothing("j1")
        assert f"but {reference} on the hub;" in caught.value.message
        assert str(caught.value.hint).startswith("'mdl get REF' fetches what is on the hub; ")
    [output] = judge({"model_url": "https://huggingface.co/org/repo/resolve/main/w.bin"}, "j1").outputs
    assert output.path.text == "w.bin"


def test_a_link_of_no_url_beside_a_file() -> None:
    [output] = judge({"a": {"url": "//[x/a.bin"}, "b": {"url": "/b.bin"}}, "j1", base=f"{B}/j1").outputs
    assert output.path.text == "b.bin"


def test_a_long_reference_is_not_cut_into_another_one() -> None:
    with pytest.raises(NotFound) as caught:
        judge({"model": f"https://huggingface.co/org/repo/tree/main/{'a/' * 150}b"}, "j1").raise_for_nothing("j1")
    assert "hf:" not in str(caught.value)


def test_why_a_link_is_not_fetched_is_told() -> None:
    """The user is told which links are pages, inputs of the job, or in a store, without their queries."""
    answer = {"input": {"images": f"{B}/data.zip?sig=CANARY"}, "page": "https://h.example/x", "copy": "gs://b/w.bin"}
    judged = judge({**answer, "model": f"{B}/w.bin"}, "j1")
    assert [output.path.text for output in judged.outputs] == ["w.bin"]
    assert judged.notes() == [
        f"not fetched, what the job was asked with: input.images ({B}/data.zip)",
        "not fetched, no file: page (https://h.example/x)",
        "not fetched, no web address: copy (gs://b/w.bin)",
    ]


def test_words_beside_files() -> None:
    """A worker that failed after it saved some files is quoted, and its files are there."""
    judged = judge({"ok": False, "error": "disk full", "weights": f"{B}/w.bin"}, "j1")
    assert [output.path.text for output in judged.outputs] == ["w.bin"]
    assert judged.notes() == ["the worker says: disk full"]
    assert judge({"message": "well done", "weights": f"{B}/w.bin"}, "j1").notes() == []


def test_words_that_are_nested_without_end() -> None:
    """Objects in objects are looked at in a bounded time."""
    value: dict[str, Any] = {}
    for _ in range(400):
        value = {"error": value, "reason": value}
    assert judge(value, "j1").words == ""
