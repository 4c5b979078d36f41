"""Answer keys: the table of what each key of an answer says of the value under it. Pure.

A handler that calls something differently is a word in one of these rows; `mdl.results.answers` has no key of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from mdl.redact import bare_url
from mdl.weights.known_formats import kind_of

# Keys of an object that describes a file

FILE_NAMES = ("filename", "file_name")
"""Keys whose text can only be the name of a file, and no title."""
NAMES = (*FILE_NAMES, "name", "key", "s3_key")
PATHS = ("path", "file_path", "filepath")
"""Keys whose text is a path on the worker's disk, which names the file if it ends in a suffix; a route has none."""
LINKS = ("url", "download_url", "presigned_url", "file_url", "href", "link")
"""Keys whose text is a link, even if it is not a whole URL."""
BASE64 = ("data", "base64", "file_data")
"""Keys whose text is base64 if a name is beside them; so is that of every key that `BASE64_KEY` matches."""
CONTENT = "content"
"""The key whose text is the file itself if the name of a file is beside it."""
TEXTS = (*BASE64, CONTENT, "body", "blob", "bytes", "payload", "value", "file", "image", "audio", "video")
"""Keys whose text is base64 if one of the keys `ENCODINGS` says so, by one of the words `BASE64_WORDS`."""
ENCODINGS = ("encoding", "content_encoding", "content_transfer_encoding", "transfer_encoding", "type", "format")
BASE64_WORDS = ("base64", "b64", "file_data")
BASE64_KEY = re.compile(r"(?i)(?:(?P<stem>.*?)[-_.]?)?(?:base64|b64)")
"""``weights_b64``, ``imageBase64``: what is before the word for base64 is a name."""
SIZES = ("size", "size_bytes")
DIGESTS = ("sha256", "checksum_sha256")
MEDIA_TYPE = "content_type"
INPUTS = frozenset({"input", "inputs"})
"""Words of a key under which an answer repeats what the job was asked with: nothing there is a result."""
REPEATS = {"zip_url": "download_items"}
"""Keys that repeat what another key has, each with the other one: they count only without it."""

# Keys of the worker's own words

FAILURES = ("ok", "success", "succeeded")
"""Keys under which ``false`` says that something failed."""
STATUSES = ("status", "state")
FAILED = frozenset({"error", "errored", "failed", "failure", "fail"})
"""Statuses that say so."""
ERRORS = ("error_message", "error", "message", "reason", "detail", "errors", "exception", "msg", "stderr")
"""Keys of words about an error; the first that has any is quoted."""

# Words in the key of a link

Meaning = Literal["output", "page", "place", "hyperlink", "unknown"]
"""What a key says of a link under it. ``place`` is a URL, as of a file: it is one unless the key around it says
something else. ``hyperlink`` is a link of whatever kind, which the key around it must tell."""

_WORDS: tuple[tuple[int, Meaning, str], ...] = (
    (1, "hyperlink", "href link src location address public s3 path value"),
    (2, "place", "url uri presigned signed"),
    (
        3,
        "page",
        """
        home homepage webpage web website site page landing dashboard doc documentation help support console ui gui
        viewer report repo repository project space card blog readme license licence paper wiki issue forum chat demo
        status webhook callback poll cancel stream self next prev previous parent api endpoint health
        message error detail reason note hint description log traceback trace monitor metric
        """,
    ),
    (
        3,
        "output",
        """
        download file result output artifact asset attachment object export
        model lora adapter weight checkpoint ckpt safetensors gguf onnx embedding vae unet tokenizer config
        archive zip tar targz bundle package
        image picture photo video gif audio sound sample speech voice wav mp3 mp4 mesh render frame mask thumbnail
        preview data dataset csv json pdf document transcript subtitle
        """,
    ),
    (  # trackers and code hosts: whatever else the key says, what they link to is a page
        4,
        "page",
        """
        wandb mlflow comet clearml neptune tensorboard trackio swanlab aim huggingface hf hub github gitlab bitbucket
        colab kaggle grafana
        """,
    ),
)
"""What words say, and how strongly. Of the words in one key the strongest decides, the last of equally strong ones."""
_UNKNOWN: tuple[int, Meaning] = (0, "unknown")
_BY_WORD: dict[str, tuple[int, Meaning]] = {}
for _strength, _meaning, _words in _WORDS:
    _BY_WORD |= dict.fromkeys(_words.split(), (_strength, _meaning))
_ANSWERS = frozenset({"answer", "body", "response", "payload", "return", "returned"})
"""Keys under which a gateway has the worker's answer as a text, beside those that say an output."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_GLUED = re.compile(r"(.+?)(?:urls?|uris?|links?)")
"""``downloadurl``."""
_SUFFIX = re.compile(r"\.(?=[a-z0-9_]*[a-z])[a-z0-9_]{1,12}", re.IGNORECASE)
_SETTINGS = re.compile(r"[^/\\]+\.(?:json|jsonl|ya?ml|toml|txt|md|model|csv|log|py)", re.IGNORECASE)
"""Names of files beside weights; other keys with a point in them may be words: ``output.url``."""
_OF_PAGES = re.compile(r".*\.(?:php[0-9]?|aspx?|jsp|cgi|do|git)|index\.x?html?", re.IGNORECASE)
"""Names with a suffix that servers give to pages."""


def object_of(value: Any, key: str = "") -> Mapping[str, Any]:
    """Return the object that a value of an answer is. Any other value is seen as the one under ``key``, or, without a
    ``key``, as an empty object."""
    if isinstance(value, dict):
        return value
    if key:
        return {key: value}
    return {}


def key_of_text(facts: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the first of ``keys`` under which is a text that is not empty; '' if there is none."""
    for key in keys:
        value = facts.get(key)
        if isinstance(value, str) and value:
            return key
    return ""


def first_text(facts: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the first text under one of ``keys`` that is not empty; '' if there is none."""
    key = key_of_text(facts, keys)
    return str(facts[key]) if key else ""


def told_name(facts: Mapping[str, Any]) -> str:
    """Return what an object calls the file that it describes: a name, or a path on the worker's disk; '' if it tells
    none."""
    name = first_text(facts, NAMES)
    if name:
        return name
    path = first_text(facts, PATHS)
    return path if is_file_name(path) else ""


def told_place(facts: Mapping[str, Any]) -> str:
    """Return the path that an object tells of the file which it describes, below the job's own folder; '' if it tells
    none. A path of the worker's disk is no such one: a program may have put each file into a folder of its own."""
    path = first_text(facts, PATHS).replace("\\", "/")
    return "" if path.startswith("/") or path[1:2] == ":" else path


def is_said_to_be_base64(facts: Mapping[str, Any]) -> bool:
    """Tell whether a field of an object says that its content is base64."""
    for key in ENCODINGS:
        word = facts.get(key)
        if isinstance(word, str) and word.lower() in BASE64_WORDS:
            return True
    return False


def may_hold_an_answer(key: str) -> bool:
    """Tell whether a text under this key may be an answer in JSON; "" is the text that is the whole answer."""
    return not key or key.lower() in _ANSWERS or key_meaning(key) == "output"


def key_meaning(key: str) -> Meaning:
    """Return what one key says of a link under it: a ``model_page`` is a page."""
    words = _words_of(key)
    if words == ["links"]:  # a list of an API's own
        return "page"
    strongest = _UNKNOWN
    for word in words:
        said = _said_by(word)
        if said[0] >= strongest[0]:
            strongest = said
    return strongest[1]


def keys_meaning(keys: Sequence[str]) -> Meaning:
    """Return what the keys on the way to a link say, the innermost last. Numbers and words for a place leave it to the
    key around them; if nothing around them says anything, a URL is an output."""
    is_place = False
    for key in reversed(keys):
        if not key or key.isdigit():
            continue
        meaning = key_meaning(key)
        if meaning == "place":
            is_place = True
        elif meaning == "unknown" and is_place:
            return "output"
        elif meaning != "hyperlink":
            return meaning
    return "output"


def is_input(keys: Iterable[str]) -> bool:
    """Tell whether what is under these keys is what the job was asked with."""
    return any(not INPUTS.isdisjoint(_words_of(key)) for key in keys)


def is_output(url: str, keys: Sequence[str]) -> bool:
    """Tell whether a link under these keys is a file of the job. A link without a path never is, nor is what the job
    was asked with; any other link that ends in a file name with a suffix is."""
    path = path_of(url)
    if not path.strip("/") or is_input(keys):
        return False
    if keys and is_named_like_a_file(keys[-1]):
        return True
    return is_file_name(path.rpartition("/")[2]) or keys_meaning(keys) == "output"


def is_file_name(name: str) -> bool:
    """Tell whether a name ends in a suffix of a file, and not of a page of a server."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or _OF_PAGES.fullmatch(name):
        return False
    return _SUFFIX.fullmatch(dot + suffix) is not None


def is_named_like_a_file(key: str) -> bool:
    """Tell whether a key is itself the name of a file, as in ``{"w.safetensors": "https://…"}``."""
    return kind_of(key) is not None or _SETTINGS.fullmatch(key) is not None


def path_of(url: str) -> str:
    """Return the path of a URL, decoded; '' for a text that is no URL."""
    try:
        return unquote(urlsplit(bare_url(url)).path)
    except ValueError:
        return ""


def _words_of(key: str) -> list[str]:
    """Return the words of a key in lower case: ``loraUrl`` has two, ``LoRA`` is one."""
    words: list[str] = []
    for part in re.split(r"[\W_]+", key):
        if _said_by(part.lower()) != _UNKNOWN:
            words.append(part.lower())
        else:
            words += _WORD.findall(part)
    return [word.lower() for word in words]


def _said_by(word: str) -> tuple[int, Meaning]:
    """Return what a word says, in whichever of its forms is in the table, and how strongly."""
    glued = _GLUED.fullmatch(word)
    for form in (word, word.removesuffix("s"), glued[1] if glued else ""):
        if form in _BY_WORD:
            return _BY_WORD[form]
    return _UNKNOWN
