"""Secrets are found by content, in whatever file they are; what only looks like one is not."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import pickle
import pickletools
import random
import zipfile
from collections.abc import Callable

import pytest
from support.cases import each

from mdl.archive.secret_scan import KINDS, secret_in
from mdl.bounds import LARGEST_DOCUMENT

RANDOM = random.Random(7)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def some(count: int, of: str = LETTERS) -> str:
    return "".join(RANDOM.choice(of) for _ in range(count))


HEX, UPPER = "0123456789abcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
SECRETS = {
    "hf": ("hub_token", f"hf_{some(34)}", "a Hugging Face token"),
    "hf of three letters": ("hub_token", "hf_" + "Ab1" * 11, "a Hugging Face token"),
    "aws key": ("aws_access_key_id", f"AKIA{some(16, UPPER)}", "an AWS access key"),
    "aws session key": ("key", f"ASIA{some(16, UPPER)}", "an AWS access key"),
    "aws secret": ("aws_secret_access_key", some(40, LETTERS + "/+"), "an AWS secret key"),
    "aws secret of a config": ("AWS_SECRET_ACCESS_KEY", some(40, LETTERS + "/+"), "an AWS secret key"),
    "wandb": ("wandb_api_key", some(40, HEX), "a Weights & Biases key"),
    "wandb of a variable": ("WANDB_API_KEY", some(40, HEX), "a Weights & Biases key"),
    "openai": ("openai_key", f"sk-{some(48)}", "an API key"),
    "openai of a project": ("openai_key", f"sk-proj-{some(40)}_{some(20)}-{some(20)}", "an API key"),
    "anthropic": ("key", f"sk-ant-api03-{some(80)}-AA", "an API key"),
    **{
        f"github {kind}": ("token", f"{kind}_{some(36)}", "a GitHub token")
        for kind in ("ghp", "gho", "ghu", "ghs", "ghr")
    },
    "github fine": ("token", f"github_pat_{some(22)}_{some(59)}", "a GitHub token"),
    "runpod": ("RUNPOD_API_KEY", f"rpa_{some(40, UPPER)}{some(6)}", "a RunPod key"),
    "replicate": ("token", f"r8_{some(37)}", "a Replicate token"),
    "nvidia": ("key", f"nvapi-{some(32)}-{some(31)}", "an NVIDIA key"),
    "gitlab": ("token", f"glpat-{some(20)}", "a GitLab token"),
    "google": ("key", f"AIza{some(35)}", "a Google key"),
    "slack": ("token", f"xoxb-{some(12, HEX)}-{some(12, HEX)}-{some(24)}", "a Slack token"),
    "jwt": ("jwt", f"eyJ{some(30)}.eyJ{some(90)}.{some(43)}", "a JSON web token"),
    "private key": ("key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "a private key"),
    "private key of openssh": ("key", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "a private key"),
}


def as_zip(data: bytes, method: int) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method, compresslevel=1) as archive:
        archive.writestr("args/version", b"3\n")
        archive.writestr("args/data.pkl", data)
    return whole.getvalue()


def pickled(protocol: int) -> Callable[[str, str], bytes]:
    return lambda key, value: pickle.dumps({"before": 1, key: value, "after": value}, protocol=protocol)


FORMS: dict[str, Callable[[str, str], bytes]] = {
    "yaml": lambda key, value: f"lr: 1\n{key}: {value}\nsteps: 3\n".encode(),
    "json": lambda key, value: json.dumps({"a": 1, key: value}).encode(),
    "json, indented": lambda key, value: json.dumps({"a": {key: value}}, indent=4).encode(),
    "script": lambda key, value: f"export {key}={value}\npython train.py\n".encode(),
    "python": lambda key, value: f"os.environ['{key}'] = '{value}'\n".encode(),
    "log": lambda key, value: ("step 1\n" * 1000 + f"args: Namespace({key}='{value}', x=1)\n").encode(),
    "utf-16": lambda key, value: f'{key} = "{value}"'.encode("utf-16"),
    "pickle 0": pickled(0),
    "a list in a pickle 0": lambda key, value: pickle.dumps([None, key, value], protocol=0),
    "pickle 2": pickled(2),
    "pickle 4": pickled(4),
    "pickle 5": pickled(5),
    "torch zip": lambda key, value: as_zip(pickled(2)(key, value), zipfile.ZIP_STORED),
    "deflated": lambda key, value: as_zip(json.dumps({key: value}).encode() * 5, zipfile.ZIP_DEFLATED),
    "gzip": lambda key, value: gzip.compress(f"{key}={value}\n".encode() * 3),
    "behind three megabytes": lambda key, value: bytes(3 * 2**20 - 20) + f'"{key}": "{value}"'.encode(),
}


def scan(data: bytes) -> str:
    return secret_in(lambda at, count: data[at : at + count], len(data))


@each("form", FORMS)
@each("secret", SECRETS)
def test_every_kind_in_every_form(secret: str, form: str) -> None:
    """A secret is named by its kind, in a text, in a pickle of any protocol, in a zip, across the border of windows."""
    key, value, kind = SECRETS[secret]
    assert scan(FORMS[form](key, value)) == kind


@pytest.mark.parametrize(
    "of",
    [
        lambda value: (None, value),
        lambda value: [[1], value],
        lambda value: [("a",), value],
        lambda value: {"a": {"b": [None, value]}},
        lambda value: {value: 1},
        lambda value: frozenset({value}),
        lambda value: [datetime.date(2026, 1, 1), value],
    ],
)
@pytest.mark.parametrize("optimized", [False, True])
def test_wherever_it_stands_in_an_old_pickle(of: Callable[[str], object], optimized: bool) -> None:
    """Its opcode ``V`` for a text is a letter, and so is the opcode before that."""
    _, secret, kind = SECRETS["hf"]
    data = pickle.dumps(of(secret), protocol=0)
    if optimized:
        data = pickletools.optimize(data)
    assert scan(data) == kind


def test_every_row_of_the_table_is_tried() -> None:
    assert {kind.name for kind in KINDS} == {kind for _, _, kind in SECRETS.values()}


@each(
    "text",
    [
        "hf_" + "x" * 34,
        "HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "hf_" + "a" * 34,
        "hub_token: <hf_abcdefghijklmnopqrstuvwxyz0123456789>",
        "hub_token: <your token>",
        "hf_your_token_here",
        "hf_transfer hf_hub_download hf_BertForTokenClassification",
        f"AKIA{'X' * 16}",
        f"AKIA{some(15, UPPER)}",
        f"aws_secret_access_key = {'X' * 40}",
        f"aws_secret_access_key: ${{secrets.AWS}}, blob: {some(40)}",
        f'{{"commit": "{some(40, HEX)}", "sha1": "{some(40, HEX)}"}}',
        f'{{"wandb_version": "0.16", "git": {{"commit": "{some(40, HEX)}"}}}}',
        f'{{"wandb_api_key": null, "commit": "{some(40, HEX)}"}}',
        f"wandb @ git+https://github.com/wandb/wandb@{some(40, HEX)}",
        f"wandb_api_key: {some(64, HEX)}",
        "sk-learn risk-a1b2c3d4e5f6a7b8c9d0e1f2 task-0123456789abcdef0123456789abcdef",
        f"sk-{'x' * 48}",
        "ghp_" + "x" * 36,
        "eyJhbGciOiJIUzI1NiJ9",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    """Placeholders, a commit's 40 digits, names of functions, words with the same letters are no secrets."""
    for form in FORMS.values():
        assert scan(form("note", text)) == ""


def test_a_vocabulary_is_no_secret() -> None:
    """Tokens of a vocabulary, however they look, and random bytes: nothing is found in them."""
    vocabulary = {
        f"{word}{n}": n for n in range(3000) for word in ("hf_", "sk-", "▁eyJ", "akia", "wandb", "secret_key")
    }
    assert scan(json.dumps(vocabulary).encode()) == ""
    assert scan(RANDOM.randbytes(2**22)) == ""


def test_the_memory_of_a_program_is_one() -> None:
    """An ELF file of the type core is one, whatever its name; a program is not."""
    for order, kind in ((b"\1", b"\4\0"), (b"\2", b"\0\4")):
        assert scan(b"\x7fELF\2" + order + bytes(10) + kind + bytes(100)) == "the memory of a program"
    assert scan(b"\x7fELF\2\1" + bytes(10) + b"\3\0" + bytes(100)) == ""


def test_no_more_than_so_much_is_looked_at() -> None:
    """Reading ends at the bound, and a zip bomb is not inflated to its end."""
    asked: list[int] = []

    def read(at: int, count: int) -> bytes:
        asked.append(at + count)
        return bytes(count)

    assert secret_in(read, 2**40) == ""
    assert max(asked) == LARGEST_DOCUMENT
    key, value, kind = SECRETS["hf"]
    secret = f"\n{key}={value}\n".encode()
    assert scan(as_zip(bytes(2**20) + secret, zipfile.ZIP_DEFLATED)) == kind
    assert scan(as_zip(bytes(LARGEST_DOCUMENT + 2**20) + secret, zipfile.ZIP_DEFLATED)) == ""


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"PK\x03\x04\x14\0\0\0\x08\0" + b"\xff" * 40])
def test_damaged_files(data: bytes) -> None:
    """What is empty, cut or damaged holds no secret that can be seen, and is no error."""
    assert scan(data) == ""
