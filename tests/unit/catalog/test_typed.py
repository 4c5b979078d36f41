"""What people type for a target: understood if it means one thing, and the right words if not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.catalog.model import Catalog, Model
from mdl.catalog.targets import models_of
from mdl.errors import MdlError, NotFound, Unsafe, UsageError
from mdl.hashing import Digest
from mdl.sources import HUB_HOSTS, Origin, parse
from mdl.sources.hub_origin import HubOrigin
from mdl.sources.url_origin import UrlOrigin

HOSTS = (*HUB_HOSTS, "127.0.0.1:18201")
CATALOG = Catalog({name: Model(name, origin="c.toml") for name in ("bert-fa", "voice-fa")}, {"nightly": ("bert-fa",)})
HEX, OTHER = "a" * 64, "b" * 64


def meant(*words: str, **more: str) -> list[Model]:
    return models_of(words, CATALOG, HOSTS, **more)  # type: ignore[arg-type]


def origins(*words: str) -> tuple[Origin, ...]:
    (model,) = meant(*words)
    return model.sources


REPO = HubOrigin("org/repo")
ONE_MEANING = {
    "org/repo": REPO,
    "org/repo@v1.0": HubOrigin("org/repo", revision="v1.0"),
    "org/repo@refs/pr/1": HubOrigin("org/repo", revision="refs/pr/1"),
    "meta-llama/Llama-3.1-8B": HubOrigin("meta-llama/Llama-3.1-8B"),
    "ggml-org/whisper.cpp": HubOrigin("ggml-org/whisper.cpp"),
    "datasets/org/repo": HubOrigin("org/repo", "dataset"),
    "models/org/repo": REPO,
    "hf:models/org/repo": REPO,
    "HF:org/repo": REPO,
    "Hf://org/repo": REPO,
    "huggingface.co/org/repo": REPO,
    "HuggingFace.co/org/repo": REPO,
    "www.huggingface.co/org/repo/": REPO,
    "hf.co/org/repo/tree/main": HubOrigin("org/repo", revision="main"),
    "huggingface.co/datasets/org/repo": HubOrigin("org/repo", "dataset"),
    "127.0.0.1:18201/org/repo": REPO,
    "https://huggingface.co/org/repo.git": REPO,
    "git@hf.co:org/repo": REPO,
    "git@hf.co:org/repo.git": REPO,
    "ssh://git@hf.co/datasets/org/repo.git": HubOrigin("org/repo", "dataset"),
    "git+https://huggingface.co/org/repo.git": REPO,
    "org/repo:Q8_0": HubOrigin("org/repo", quant="Q8_0"),
    "hf:org/repo:UD-Q4_K_XL": HubOrigin("org/repo", quant="UD-Q4_K_XL"),
    "org/repo@main:q8_0": HubOrigin("org/repo", revision="main", quant="q8_0"),
    "hf.co/org/repo:Q8_0": HubOrigin("org/repo", quant="Q8_0"),
    "https://huggingface.co/org/repo:Q8_0": HubOrigin("org/repo", quant="Q8_0"),
}


@each("word", ONE_MEANING)
def test_one_meaning(word: str) -> None:
    """What is written as other tools write it is understood, and read back from its own text."""
    assert origins(word) == (ONE_MEANING[word],)
    assert origins(str(ONE_MEANING[word])) == (ONE_MEANING[word],)


@each(
    ("words", "kind", "said"),
    [
        ([""], UsageError, "a variable not set"),
        ([" "], UsageError, "a variable not set"),
        (["org/repo", ""], UsageError, "a variable not set"),
        (["gpt2"], NotFound, "mdl get OWNER/gpt2"),
        (["bertfa"], NotFound, "did you mean bert-fa? A repository of the hub needs its owner"),
        (["llama3:8b"], NotFound, "OWNER/llama3-GGUF:Q4_K_M"),
        (["./model"], NotFound, "not in the catalog"),
        (["127.0.0.1:18299/model.onnx"], UsageError, "write http://127.0.0.1:18299/model.onnx"),
        (["localhost/model.onnx"], UsageError, "write http://localhost/model.onnx"),
        (["example.com/a/f.gguf"], UsageError, "write https://example.com/a/f.gguf"),
        (["example.com/f.gguf"], UsageError, "hf:example.com/f.gguf"),
        (["org/repo/unet/config.json"], UsageError, "mdl get org/repo unet/config.json"),
        (["git@github.com:org/repo"], UsageError, "does not clone"),
        (["https://github.com/org/repo.git"], UsageError, "does not clone"),
        (["org/repo", "*.json"], UsageError, "--include '*.json'"),
        (["org/repo", "ggml-org/whisper.cpp"], UsageError, "hf:ggml-org/whisper.cpp for the repository"),
        (["hf:org/repo:"], UsageError, "not a quantisation"),
        (["hf:org/repo:a b"], UsageError, "not a quantisation"),
        (["hf:models"], UsageError, "not a repository id"),
        (["org/repo", "../secret.bin"], Unsafe, "path refused"),
        (["https://h:0/f.bin"], UsageError, "a port must be"),
        (["https://h/f.bin#sha256=abc"], UsageError, "a sha256 has 64 digits"),
        ([f"https://h/f.bin#sha512={HEX}"], UsageError, "compares sha256, not sha512"),
        (["https://h/f.bin#md5=abc"], UsageError, "compares sha256, not md5"),
        ([f"https://huggingface.co/org/repo#sha256={HEX}"], UsageError, "this is not one file"),
    ],
)
def test_the_right_words(words: Sequence[str], kind: type[MdlError], said: str) -> None:
    """What has no one meaning is an error before anybody is asked, which names the right words; no catalog is to be
    mended for it."""
    with pytest.raises(kind) as caught:
        meant(*words)
    error = caught.value
    assert said in f"{error.message}; {error.hint}"
    assert (type(error), error.exit_code) == (kind, {UsageError: 2, NotFound: 3, Unsafe: 11}[kind])
    assert "mend" not in str(error.advice)


FILES = {
    ("org/repo", "config.json"): [HubOrigin("org/repo", subpath="config.json")],
    ("hf:org/repo@v1", "a.gguf", "unet/config.json"): [
        HubOrigin("org/repo", revision="v1", subpath="a.gguf"),
        HubOrigin("org/repo", revision="v1", subpath="unet/config.json"),
    ],
    ("org/repo", "./unet/", "LICENSE"): [
        HubOrigin("org/repo", subpath="unet"),
        HubOrigin("org/repo", subpath="LICENSE"),
    ],
    ("https://huggingface.co/org/repo", "a/b/c.bin"): [HubOrigin("org/repo", subpath="a/b/c.bin")],
    ("org/repo:Q8_0", "config.json"): [
        HubOrigin("org/repo", quant="Q8_0"),
        HubOrigin("org/repo", subpath="config.json"),
    ],
}


@pytest.mark.parametrize("words", FILES)
def test_files_behind_a_repository(words: tuple[str, ...]) -> None:
    """Words behind a repository that can be no other target are files or folders of it, and the rest of it is not
    meant. All of it is one target."""
    assert list(origins(*words)) == FILES[words]


SEVERAL = {
    ("org/repo", "org/other"): ["org--repo", "org--other"],
    ("org/repo", "bert-fa"): ["org--repo", "bert-fa"],
    ("org/repo", "nightly", "voice-fa"): ["org--repo", "bert-fa", "voice-fa"],
    ("bert-fa", "org/repo", "config.json"): ["bert-fa", "org--repo"],
    ("org/repo", "https://h/f.bin"): ["org--repo", "h"],
    ("org/repo", "s3://bucket/x"): ["org--repo", "bucket--x"],
    ("org/repo", "org/other:Q8_0", "hf:gpt2"): ["org--repo", "org--other", "gpt2"],
    ("org/repo", "config.json", "org/other", "vocab.txt"): ["org--repo", "org--other"],
    ("org/repo", "huggingface.co/org/other"): ["org--repo", "org--other"],
    ("org/repo", "org/repo.v2@main"): ["org--repo", "org--repo.v2"],
}


@each("words", SEVERAL)
def test_several_targets(words: tuple[str, ...]) -> None:
    """A name of the catalog, another repository and a URL stay targets of their own behind a repository."""
    assert [model.name for model in meant(*words)] == SEVERAL[words]


@given(
    st.lists(
        st.sampled_from(["org/repo", "f.bin", "a/b", "", "HF:x", "git@h:a.git", "hf.co/o/r", "a:b", "*"]) | st.text()
    )
)
def test_no_words_fail_otherwise(words: list[str]) -> None:
    """No words whatever fail with anything but mdl's own errors."""
    with suppress(MdlError):
        meant(*words)


SHA = Digest("sha256", HEX)


@each(
    ("word", "more"),
    [
        (f"https://h/f.bin#sha256={HEX}", {}),
        (f"https://h/f.bin#sha256={HEX.upper()}", {}),
        (f"https://h/f.bin#egg=x&sha256={HEX}", {}),
        ("https://h/f.bin", {"sha256": HEX.upper()}),
        ("https://h/f.bin", {"sha256": f"sha256:{HEX}"}),
        (f"https://h/f.bin#sha256={HEX}", {"sha256": HEX}),
        ("https://huggingface.co/org/repo/resolve/main/f.bin", {"sha256": HEX}),
        (f"https://huggingface.co/org/repo/resolve/main/f.bin?download=true#sha256={HEX}", {}),
        (f"huggingface.co/org/repo/resolve/main/f.bin#sha256={HEX}", {}),
    ],
)
def test_a_digest_of_the_command_line(word: str, more: dict[str, str]) -> None:
    """A digest in the URL's fragment, or given beside it, is the file's; the URL that is asked for has no fragment."""
    (model,) = meant(word, **more)
    (file,) = model.files
    assert (file.path.text, file.digest, "#" in file.url) == ("f.bin", SHA, False)


def test_a_hash_in_the_name_of_a_file() -> None:
    """In a reference it is a part of the path."""
    word = f"hf:org/repo@main/f#sha256={HEX}"
    assert origins(word) == (HubOrigin("org/repo", revision="main", subpath=f"f#sha256={HEX}"),)


def test_a_digest_of_a_file_that_its_server_names() -> None:
    """It is kept until the name is known, and is part of the source's own text."""
    (origin,) = origins(f"https://h/download/12345#sha256={HEX}")
    assert origin == UrlOrigin("https://h/download/12345", SHA)
    assert origins(str(origin)) == (origin,)
    assert meant("https://h/download/12345", sha256=HEX)[0].sources == (origin,)


def test_a_name_of_the_command_line() -> None:
    """It replaces the name in the URL, which then needs none."""
    for word in ("https://h/f.bin", "https://h/download/12345", "https://h/sub/"):
        (model,) = meant(word, output="sub/x.gguf")
        assert [file.path.text for file in model.files] == ["sub/x.gguf"]
        assert model.sources == ()
    assert meant("hf:org/repo@main/a/f.bin", output="g.bin")[0].files[0].url == "hf:org/repo@main/a/f.bin"


@each(
    ("words", "more", "kind"),
    [
        (["https://h/a.bin", "https://h/b.bin"], {"output": "x"}, UsageError),
        (["bert-fa"], {"output": "x"}, UsageError),
        (["bert-fa"], {"sha256": HEX}, UsageError),
        (["org/repo"], {"sha256": HEX}, UsageError),
        (["https://h/a.bin"], {"sha256": "abc"}, UsageError),
        (["https://h/a.bin"], {"sha256": ""}, UsageError),
        ([f"https://h/a.bin#sha256={HEX}"], {"sha256": OTHER}, UsageError),
        (["https://h/a.bin"], {"output": ""}, Unsafe),
        (["https://h/a.bin"], {"output": "/etc/x"}, Unsafe),
        (["https://h/a.bin"], {"output": "../x"}, Unsafe),
    ],
)
def test_a_wrong_name_or_digest(words: list[str], more: dict[str, str], kind: type[MdlError]) -> None:
    """For several targets, a name of the catalog or a repository, a wrong digest, two that differ, and a name that is
    no safe one: refused before anybody is asked."""
    with pytest.raises(kind):
        meant(*words, **more)


@pytest.mark.parametrize("text", ["hf://buckets/org/name", "hf:buckets/org/name/file.bin"])
def test_a_storage_bucket_of_the_hub_is_none_of_its_repositories(text: str) -> None:
    """It is refused for what it is, and not as a misspelt name."""
    with pytest.raises(UsageError, match="storage buckets of the hub are not supported"):
        parse(text)


@pytest.mark.parametrize("word", ["kaggle:org/name", "modelscope:org/repo", "magnet:?xt=urn:btih:abc"])
def test_a_scheme_of_another_program(word: str) -> None:
    """To add it to a catalog would not help: the hint says what mdl downloads."""
    assert "hf:org/repo, s3://bucket/key and https://" in str(Catalog().not_found(word).hint)
