"""Answer words: what the keys of an answer and the paths of its links say: an output of the job, a page, or nothing.

The one table of these words. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import unquote, urlsplit

from mdl.redact import bare_url
from mdl.weights.table import kind_of

Meaning = Literal["output", "page", "place", "hyperlink", "unknown"]
"""What a key says of a link under it. ``place`` is a URL, as of a file: it is one unless the key around it says
something else. ``hyperlink`` is a link of whatever kind, which the key around it must tell."""

_OUTPUT = """
    download file result output artifact asset attachment object export
    model lora adapter weight checkpoint ckpt safetensors gguf onnx embedding vae unet tokenizer config
    archive zip tar targz bundle package
    image picture photo video gif audio sound sample speech voice wav mp3 mp4 mesh render frame mask thumbnail preview
    data dataset csv json pdf document transcript subtitle
"""
_PAGE = """
    home homepage webpage web website site page landing dashboard doc documentation help support console ui gui viewer
    report repo repository project space card blog readme license licence paper wiki issue forum chat demo
    status webhook callback poll cancel stream self next prev previous parent api endpoint health
    message error detail reason note hint description log traceback trace monitor metric
"""
_SERVICE = """
    wandb mlflow comet clearml neptune tensorboard trackio swanlab aim huggingface hf github gitlab bitbucket colab
    kaggle grafana
"""
"""Trackers and code hosts: whatever else the key says, what they link to is a page."""
_PLACE = "url uri presigned signed"
_HYPERLINK = "href link src location address public s3 path value"
"""Words that leave it wholly to the key around them."""

_MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(_HYPERLINK.split(), "hyperlink"),
    **dict.fromkeys(_PLACE.split(), "place"),
    **dict.fromkeys(_PAGE.split(), "page"),
    **dict.fromkeys(_OUTPUT.split(), "output"),
}
_SERVICES = frozenset(_SERVICE.split())
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_GLUED = re.compile(r"(.+?)(?:urls?|uris?|links?)")
"""``downloadurl``."""
_SUFFIX = re.compile(r"\.(?=[a-z0-9_]*[a-z])[a-z0-9_]{1,12}", re.IGNORECASE)
_OF_PAGES = re.compile(r".*\.(?:php[0-9]?|aspx?|jsp|cgi|do|git)|index\.x?html?", re.IGNORECASE)
"""Names with a suffix that servers give to pages."""


def key_meaning(key: str) -> Meaning:
    """What one key says. The last word that says something decides: a ``model_page`` is a page."""
    words = _words_of(key)
    if words == ["links"]:  # a list of an API's own
        return "page"
    if not _SERVICES.isdisjoint(words):
        return "page"
    meanings = [_word_meaning(word) for word in reversed(words)]
    decisive = [meaning for meaning in meanings if meaning in ("output", "page")]
    if decisive:
        return decisive[0]
    weaker: tuple[Meaning, ...] = ("place", "hyperlink")
    return next((meaning for meaning in weaker if meaning in meanings), "unknown")


def keys_meaning(keys: Sequence[str]) -> Meaning:
    """What the keys on the way to a value say, the innermost last. Numbers and words for a place leave it to the key
    around them; with nothing around that says anything, a URL is an output."""
    is_place = False
    for key in reversed(keys):
        if not key or key.isdigit():
            continue
        meaning = key_meaning(key)
        if meaning == "place":
            is_place = True
        elif meaning == "hyperlink":
            continue
        elif meaning == "unknown" and is_place:
            return "output"
        else:
            return meaning
    return "output"


def is_output(url: str, keys: Sequence[str]) -> bool:
    """Whether a link under these keys is a file of the job. A link without a path never is; a file name with a suffix
    at its end always is."""
    path = path_of(url)
    if not path.strip("/"):
        return False
    if keys and is_named_like_a_file(keys[-1]):
        return True
    return is_file_name(path.rpartition("/")[2]) or keys_meaning(keys) == "output"


def is_file_name(name: str) -> bool:
    """Whether a name ends in a suffix of a file, and not of a page of a server."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and bool(_SUFFIX.fullmatch(dot + suffix)) and not _OF_PAGES.fullmatch(name)


def is_named_like_a_file(key: str) -> bool:
    """Whether a key is itself the name of a file, as in ``{"w.safetensors": "https://…"}``."""
    return kind_of(key) is not None


def path_of(url: str) -> str:
    """The path of a URL, decoded; '' for what is not one."""
    try:
        return unquote(urlsplit(bare_url(url)).path)
    except ValueError:
        return ""


def _words_of(key: str) -> list[str]:
    """The words of a key in lower case: ``loraUrl`` has two, ``LoRA`` is one."""
    words: list[str] = []
    for part in re.split(r"[\W_]+", key):
        is_word = _word_meaning(part.lower()) != "unknown"
        words += [part] if is_word else _WORD.findall(part)
    return [word.lower() for word in words]


def _word_meaning(word: str) -> Meaning:
    glued = _GLUED.fullmatch(word)
    for form in (word, word.removesuffix("s"), glued[1] if glued else word):
        if form in _MEANINGS:
            return _MEANINGS[form]
    return "unknown"
