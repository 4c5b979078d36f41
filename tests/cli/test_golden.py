"""What every command prints, frozen: a change of the code behind it shows itself as a change of a file in ``golden``.

``pytest tests/cli/test_golden.py --golden`` writes the files anew; the change of them is then read like any other. What
differs from run to run (times, speeds, free space, ports, folders, the ids of jobs) is replaced by words in capitals.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.loopback_hub import LoopbackHub, Repo
from support.packing import make_run
from support.shell import Inside, Shell, machine, settings
from support.weights import safetensors_of

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    "config.json": b'{"model_type": "bert"}\n',
    "model.safetensors": safetensors_of(bytes(range(256)) * 400, 256 * 400),
    "tokenizer.json": b'{"version": "1.0"}\n',
}
REPOS = [
    Repo("org/tiny", FILES),
    Repo("org/other", {"config.json": b'{"model_type": "other"}\n', "weights.bin": bytes(range(256)) * 300}),
    Repo("org/gated", {"config.json": b"{}\n"}, gated=True),
]
CATALOG = """schema = 1
[models.tiny]
title = "A tiny model"
kind = "model"
license = "apache-2.0"
tags = ["small", "test"]
source = "hf:org/tiny"
[models.other]
title = "Another one"
kind = "dataset"
source = "hf:org/other"
[models.lost]
title = "Not there"
source = "hf:org/nowhere"
[models.closed]
source = "hf:org/gated"
[groups]
nightly = ["tiny", "other"]
"""
CHAPTERS = {
    "catalog": """
        mdl list
        mdl list --json
        mdl list --tag small
        mdl show tiny
        mdl show tiny --json
        mdl search tiny
        mdl search tiny --json
        mdl add third hf:org/other --license mit --tag x
        mdl show third
        mdl remove third
        mdl lock tiny other
        mdl lock --check
        mdl lock tiny --json
        mdl export tiny --format urls
        mdl export tiny --format aria2
        mdl export tiny --format metalink
        mdl export tiny --format sha256sums
        mdl export tiny --json
        mdl outdated tiny
        mdl outdated tiny --json
    """,
    "get": """
        mdl get tiny -n
        mdl get tiny -n --json
        mdl get tiny
        mdl get tiny
        mdl get tiny --json --progress none
        mdl get nightly
        mdl get org/other --into there
        mdl get nowhere
        mdl get lost
        mdl get lost --json
        mdl get closed
        mdl get tiny lost
        mdl get tiny lost --json
        mdl path tiny
        mdl path lost
        mdl list
        mdl list --local
        mdl list --local --json
        mdl verify
        mdl verify --json
        mdl update tiny
        mdl update tiny --json
        mdl get tiny --layout hf-cache
        mdl import there --as other -n
        mdl import there --as other
        mdl prefetch tiny
        mdl get tiny --offline
        mdl get third --offline
        mdl rm tiny
        mdl rm tiny --yes
        mdl rm tiny --yes --json
        mdl clean
        mdl clean --json
    """,
    "trained": """
        mdl checkpoints run
        mdl checkpoints run --json
        mdl checkpoints nowhere
        mdl pack run -n
        mdl pack run --checkpoint best
        mdl pack run --checkpoint 777
        mdl pack run --logs
        mdl pack run --json
        mdl unpack model_run.zip --list
        mdl unpack model_run.zip --list --json
        mdl unpack model_run.zip --test
        mdl unpack model_run.zip --to out
        mdl unpack model_run.zip --to out
        mdl unpack model_run_checkpoint-500.zip --to srv --release
        mdl unpack model_run.zip --to srv --release --json
        mdl releases srv
        mdl releases srv --json
        mdl rollback srv
        mdl rollback srv --json
        mdl unpack nowhere.zip
    """,
    "remotes": """
        mdl remote list
        mdl remote list --json
        mdl remote check nowhere
        mdl remote jobs gpu
        mdl fetch gpu job-1
        mdl fetch gpu job-1 --json
    """,
    "jobs": """
        mdl get tiny
        mdl jobs
        mdl jobs --json
        mdl jobs show
        mdl jobs show --json
        mdl jobs log
        mdl jobs watch --progress lines
        mdl jobs pause nowhere
        mdl jobs resume
        mdl jobs clean --older-than 30d
        mdl jobs clean --older-than 0s
    """,
    "machine": """
        mdl config
        mdl config path
        mdl config set connections 4
        mdl config get connections
        mdl config list --json
        mdl init
        mdl --version
        mdl help exit-codes
    """,
    "plugins": """
        mdl help schema
        mdl lock tiny other
        mdl get tiny
        mdl bundle export tiny -o tiny.tar
        mdl bundle export tiny -o tiny.tar --json
        mdl bundle import tiny.tar
        mdl bundle import tiny.tar --json
        mdl render k8s tiny
        mdl render slurm tiny
        mdl render systemd tiny --mdl /usr/local/bin/mdl
        mdl render cron tiny --mdl /usr/local/bin/mdl
        mdl render cron tiny --mdl /usr/local/bin/mdl --json
        mdl mirror list nowhere
        mdl fleet status tiny --on nowhere
        mdl serve --port 99999
    """,
    "misuse": """
        mdl gte tiny
        mdl get
        mdl get tiny --conections 4
        mdl get tiny --connections many
        mdl get tiny --connections
        mdl get tiny --token abc
        mdl get tiny --layout cache
        mdl get tiny --limit-rate fast
        mdl jobs pausee
        mdl verify nowhere
        mdl login
        mdl get --json
    """,
}
_HEX = r"[0-9a-f]"
CHANGING = [
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "TIME"),
    (r"\b\d{4}-[a-z0-9]{4}\b", "JOB"),
    (rf"mdl-get-{_HEX}{{8}}", "mdl-get-DIGEST"),
    (r'"by": "[\d:]+"', '"by": "WHO"'),
    (r"(?<=\S) {3,}", "  "),  # the width of a column is that of its widest value
    (r"(?m)^ *\d+%  .* left\n", ""),  # how far it is, which a slow machine tells
    (r"(, )?\b[\d.,]+ [kMGT]?B/s", ""),
    (r"\b\d+(\.\d+)? (s|ms)\b", "SECONDS"),
    (r'("(seconds|bytes_per_second|eta_seconds|bytes_free)": )[\d.]+', r"\1NUMBER"),
    (r"[\d.,]+ [kMGT]B free\b", "ROOM free"),
    (r"mdl \d+\.\d+\.\d+( \([^)]*\))?", "mdl MDL_VERSION"),
    (r"(just now|\d+ (second|minute)s? ago)", "AGO"),
]
"""What differs from run to run: patterns, and what stands for it in the files."""


@pytest.mark.parametrize(
    "chapter", [pytest.param(name, marks=[pytest.mark.plugins] * (name == "plugins")) for name in CHAPTERS]
)
def test_what_the_commands_print(
    mdl: Inside, hub: LoopbackHub, tmp_path: Path, chapter: str, request: pytest.FixtureRequest
) -> None:
    """Each command of the chapter prints what it printed before, on both streams, and ends with the same code."""
    shell = machine(tmp_path / "home", CATALOG, hub.url, COLUMNS="100", MDL_LOG_FILE="", TZ="UTC")
    make_run(shell.home)
    settings(shell, f'[remotes.gpu]\nkind = "runpod"\nbase_url = "{hub.url}/v2/abc123"\n')
    told = [_told(mdl, shell, line.strip()) for line in CHAPTERS[chapter].strip().splitlines()]
    now = "\n".join(told)
    golden = GOLDEN / f"{chapter}.txt"
    if request.config.getoption("--golden"):
        golden.write_text(now, "utf-8")
    assert now == golden.read_text("utf-8")


def _told(mdl: Inside, shell: Shell, line: str) -> str:
    """A command, what it printed on each stream, and its exit code."""
    ran = mdl(shell, *shlex.split(line)[1:])
    parts = [f"$ {line}\n", ran.out]
    if ran.err:
        parts += ["--- stderr\n", ran.err]
    text = "".join(part if part.endswith("\n") or not part else f"{part}\n" for part in parts)
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text)
    return f"{text.replace(str(shell.home), 'HOME')}--- exit code {ran.code}\n"


def test_the_files_are_those_of_the_chapters() -> None:
    """No file is left of a chapter that is gone."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(CHAPTERS)
