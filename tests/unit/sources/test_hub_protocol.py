"""The documents and headers of the hub, to the letter, as the hub was seen to send them."""

from __future__ import annotations

from dataclasses import dataclass

from support.cases import each

from mdl.hashing import Digest
from mdl.sources.hub_protocol import (
    HubCall,
    asked_paths,
    file_headers,
    is_asked,
    parse_call,
    paths_info,
    pointer,
    refs,
    refusal_headers,
    repository_info,
    tree,
)

SHA256 = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
GIT_SHA1 = "9e26dfeeb6e641a33dae4961196235bdb965b21b"
COMMIT = "c" * 40


@dataclass(frozen=True)
class File:
    path: str
    size: int
    digest: Digest


SMALL = File("config.json", 2, Digest("git-sha1", GIT_SHA1))
LARGE = File("onnx/deep/model.bin", 12345, Digest("sha256", SHA256))
FILES = {file.path: file for file in (SMALL, LARGE)}


@each(
    ("path", "call"),
    {
        "/api/models/org/repo": HubCall("info", "model", "org/repo", "main", ""),
        "/api/models/gpt2/revision/refs%2Fpr%2F1": HubCall("info", "model", "gpt2", "refs/pr/1", ""),
        "/api/datasets/org/d/tree/v1/a%2Fb": HubCall("tree", "dataset", "org/d", "v1", "a/b"),
        "/api/spaces/org/s/refs": HubCall("refs", "space", "org/s", "main", ""),
        "/api/models/org/r/paths-info/main": HubCall("paths-info", "model", "org/r", "main", ""),
        "/org/r/resolve/main/a%20b%23c%2B.bin": HubCall("resolve", "model", "org/r", "main", "a b#c+.bin"),
        "/gpt2/resolve/main/a": HubCall("resolve", "model", "gpt2", "main", "a"),
        "/org/r/resolve/refs%2Fpr%2F1/a": HubCall("resolve", "model", "org/r", "refs/pr/1", "a"),
        "/org/r/resolve/refs/pr/1/a/b": HubCall("resolve", "model", "org/r", "refs/pr/1", "a/b"),
        "/datasets/org/d/resolve/main/a": HubCall("resolve", "dataset", "org/d", "main", "a"),
    }.items(),
)
def test_what_a_path_asks_for(path: str, call: HubCall) -> None:
    """Ids of one part and of two, revisions with a slash, quoted or not, and names of any letters."""
    assert parse_call(path) == call


@each("path", ["/", "/api/agent-harnesses", "/api/models", "/org/repo", "/org/repo/raw/main/a", "/org/r/resolve/main"])
def test_what_is_no_call(path: str) -> None:
    """Every other address is none of the protocol's."""
    assert parse_call(path) is None


def test_a_pointer() -> None:
    """The pointer of a large file is Git LFS's own text."""
    expected = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize 12345\n"
    assert pointer(LARGE) == expected.encode()  # its documentation's example


def test_a_listing() -> None:
    """Folders come first; a large file has the pointer's blob id, and its sha256 as ``lfs.oid``."""
    small = {"type": "file", "path": "config.json", "size": 2, "oid": GIT_SHA1}
    [onnx, deep, *files] = tree(FILES, "", recursive=True) or []
    assert [(folder["type"], folder["path"], folder["size"]) for folder in (onnx, deep)] == [
        ("directory", "onnx", 0),
        ("directory", "onnx/deep", 0),
    ]
    [large] = files[1:]
    assert files[0] == small
    assert len(large.pop("oid")) == 40
    lfs = {"oid": SHA256, "size": 12345, "pointerSize": len(pointer(LARGE))}
    assert large == {"type": "file", "path": "onnx/deep/model.bin", "size": 12345, "lfs": lfs}


@each(
    ("below", "recursive", "paths"),
    [
        ("", False, ["onnx", "config.json"]),
        ("onnx", False, ["onnx/deep"]),
        ("onnx", True, ["onnx/deep", "onnx/deep/model.bin"]),
        ("onnx/deep/", False, ["onnx/deep/model.bin"]),
        ("onnx/de", True, None),
        ("config.json", False, None),
        ("none", True, None),
    ],
)
def test_a_part_of_a_listing(below: str, recursive: bool, paths: list[str] | None) -> None:
    """A folder is listed by itself, or with all below it; what is no folder is not there."""
    items = tree(FILES, below, recursive=recursive)
    assert (items and [item["path"] for item in items]) == paths


def test_an_empty_repository() -> None:
    """A repository without a file is there, and its listing is empty."""
    assert tree({}, "", recursive=True) == []


def test_information() -> None:
    """Siblings are names; with ``blobs`` they have sizes too, and the sha256 is ``lfs.sha256`` here."""
    plain = repository_info("org/repo", COMMIT, FILES.values(), gated=False, private=False, blobs=False)
    assert (plain["id"], plain["sha"], plain["private"], plain["gated"]) == ("org/repo", COMMIT, False, False)
    assert plain["siblings"] == [{"rfilename": "config.json"}, {"rfilename": "onnx/deep/model.bin"}]
    small, large = repository_info("o/r", COMMIT, FILES.values(), gated="auto", private=True, blobs=True)["siblings"]
    assert small == {"rfilename": "config.json", "size": 2, "blobId": GIT_SHA1}
    assert large["lfs"] == {"sha256": SHA256, "size": 12345, "pointerSize": len(pointer(LARGE))}


def test_paths_and_branches() -> None:
    """Named paths are described, those that are not there left out; refs of pull requests are no branches."""
    named = paths_info(FILES, ["onnx", "config.json", "none", "config.json"])
    assert [(item["type"], item["path"]) for item in named] == [("directory", "onnx"), ("file", "config.json")]
    expected = [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}]
    assert refs({"refs/pr/1": "d" * 40, "main": COMMIT})["branches"] == expected


@each(
    ("body", "paths"),
    [
        (b"paths=a&paths=b%20c&expand=false", ["a", "b c"]),
        (b'{"paths": ["a", "b"]}', ["a", "b"]),
        (b'{"paths": "a"}', ["a"]),
        (b"{", []),
        (b"", []),
    ],
)
def test_which_paths_a_body_names(body: bytes, paths: list[str]) -> None:
    """A form, as huggingface_hub sends it, or a JSON object."""
    assert asked_paths(body) == paths


@each(
    ("query", "answer"),
    [("recursive=True&expand=False", True), ("recursive=1", True), ("recursive=0", False), ("", False)],
)
def test_a_flag(query: str, answer: bool) -> None:
    """Flags are spelt as Python and as JavaScript spell them."""
    assert is_asked(query, "recursive") == answer


def test_headers() -> None:
    """A file's identity is its digest, in quotes; the commit is named. A message has only letters that a header may."""
    assert file_headers(LARGE, COMMIT) == {
        "ETag": f'"{SHA256}"',
        "X-Linked-Etag": f'"{SHA256}"',
        "X-Linked-Size": "12345",
        "X-Repo-Commit": COMMIT,
        "Accept-Ranges": "bytes",
    }
    assert refusal_headers("EntryNotFound", "no\nفایل") == {
        "X-Error-Code": "EntryNotFound",
        "X-Error-Message": "no?????",
    }
    assert refusal_headers("", "no") == {"X-Error-Message": "no"}
