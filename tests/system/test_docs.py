"""The documents: every command in them is run, every link leads somewhere, and what is generated is up to date."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from support.long import only_long
from support.loopback_hub import LoopbackHub, Repo
from support.packing import make_run
from support.shell import ExitCode, Shell
from support.weights import gguf_file

from mdl.cli.commands import commands
from mdl.errors import EXIT_CODES

pytestmark = pytest.mark.plugins  # some of the pages are theirs
ROOT = Path(__file__).parents[2]
PLUGINS = tuple(sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("mdl/plugins/*/*.md")))
MAINTAINERS = ("architecture.md", "benchmarks.md", "faults.md")
"""Pages of docs/ that are not for users, and not on the site."""
USERS = tuple(sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md") if page.name not in MAINTAINERS))
PAGES = (
    "README.md",
    "docs/configuration.md",
    "docs/guide.md",
    "docs/index.md",
    "docs/recipes.md",
    "docs/trained-runs.md",
    "mdl/plugins/bundle/bundle.md",
    "mdl/plugins/render/render.md",
)
"""The pages whose blocks are run here."""
ELSEWHERE = {
    "demo": ".ci/run",
    "test": ".ci/run",
    "bucket": "tests/cli/test_guide.py",
    "runpod": "tests/cli/test_guide.py",
    "trainer": "tests/cli/test_guide.py",
    "mirror": "tests/plugins/mirror/test_mirror.py",
}
"""The marks of blocks that are run by another file, which names the mark."""
GENERATED = "docs/commands.md"
"""Its examples are parsed by tests/cli/test_help.py."""
FOREIGN = (
    *("crontab", "docker", "jq", "kubectl", "llama-server", "pipx", "pytest", "sbatch", "scontrol", "scp"),
    *("srun", "ssh", "systemctl", "useradd", "uv"),
)
"""Programs of others that the documents start: here each of them reads what it is given, and succeeds."""
LEFT_OUT = {
    "mdl demo": "takes a minute; .ci/run has it",
    "mdl mirror": "needs a bucket: test_mirror.py",
    "mdl jobs pause": "needs a job that runs: test_jobs.py",
    "mdl jobs cancel": "needs a job that runs: test_jobs.py",
    "mdl jobs resume": "needs a job that was interrupted: test_jobs.py",
    "git clone": "installs mdl",
    "mdl --install-completion": "needs the shell of a terminal: test_completion.py",
    "install -d": "changes the machine",
    "cp catalog": "changes the machine",
    "cp mdl-prefetch": "changes the machine",
}
"""Lines that are left out of the blocks that are run here, with the reason."""
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "vocab.txt": b"a"}
TOKEN = "hf_" + "k3" * 17
"""Whose user may write to the hub."""
WEIGHTS = b"\x80weights" * 40_000
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
REPOS = (
    Repo("openai/whisper-tiny", {**FILES, "model.safetensors": WEIGHTS}),
    Repo("Qwen/Qwen3-4B-GGUF", {"Qwen3-4B-Q8_0.gguf": b"GGUF" + WEIGHTS, "Qwen3-4B-Q4_K_M.gguf": b"GGUF"}),
    Repo("HooshvareLab/bert-fa-base-uncased", {**FILES, "pytorch_model.bin": WEIGHTS}, branch="moved"),
)
BEFORE = (
    "lock",
    "pack runs/tts -o tts.zip",
    "pack runs/tts --checkpoint best -o older.zip",
    "unpack older.zip --to ../srv/tts --release",
)
"""What was done before the first command of a page."""
CATALOG = """\
schema = 1
[models.bert-fa]
source = "hf:HooshvareLab/bert-fa-base-uncased"
include = ["config.json", "vocab.txt", "pytorch_model.bin"]
revision = "moved"
[models.z-image-turbo]
files = [{ path = "diffusion_models/z.gguf", url = "URL/file.gguf" }, { path = "vae/ae.bin", url = "URL/ae" }]
[groups]
nightly = ["bert-fa"]
"""


class Block(NamedTuple):
    """A block of shell of a page: the mark above it, and its lines."""

    mark: str
    text: str


def blocks(page: str) -> list[Block]:
    """Every block of shell of a page."""
    found = re.findall(
        r"(?:^<!-- ([^>]*) -->\n)?^```sh\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [Block(mark, text) for mark, text in found]


def scripts(page: str) -> list[str]:
    """The blocks of a page that are run here, without the lines that are left out."""
    kept = []
    for block in blocks(page):
        if not block.mark:
            lines = [line for line in block.text.splitlines() if not line.startswith(tuple(LEFT_OUT))]
            kept.append("".join(f"{line}\n" for line in lines))
    return kept


class Files(BaseHTTPRequestHandler):
    """Any path is a file; one without a suffix is called as its header says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = gguf_file() + self.path.encode() + WEIGHTS
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def file_server() -> Iterator[str]:
    """The URL of a server that has a file for every path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def environ(tmp_path: Path, file_server: str) -> Iterator[dict[str, str]]:
    """A home with a run in it, programs of others that do nothing, a hub, and a server for any other URL."""
    programs = tmp_path / "bin"
    programs.mkdir()
    own = tmp_path / "srv" / "bin"
    own.mkdir(parents=True)
    for place in (*(programs / name for name in FOREIGN), own / "smoke-test"):
        place.write_text("#!/bin/sh\n[ -t 0 ] || cat > /dev/null\n")
        place.chmod(0o755)
    (programs / "mdl").write_text(f'#!/bin/sh\nexec {sys.executable} -m mdl "$@"\n')
    (programs / "mdl").chmod(0o755)
    work = tmp_path / "work"
    run = make_run(work / "runs", "tts")
    (run / ".env").write_text("PORT=8000\n")
    (run / "wandb" / "run-1" / "files").mkdir(parents=True)
    (run / "wandb" / "run-1" / "files" / "config.yaml").write_text("seed: 1\n")
    (run / "run.yaml").write_text(f"hub_token: hf_{'Ab1' * 12}\n")
    (tmp_path / "ComfyUI" / "models" / "loras").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "models" / "loras" / "style.safetensors").write_bytes(SAFETENSORS)
    with LoopbackHub(list(REPOS)) as hub:
        hub.uploads.token = TOKEN
        yield {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "PAGES": file_server,
            "SHA256": hashlib.sha256(gguf_file() + b"/download/12345" + WEIGHTS).hexdigest(),
        }


def placed(script: str, folder: Path, server: str) -> str:
    """The script with its absolute folders below ``folder``, its URLs at ``server`` and its window open."""
    script = re.sub(r"(?<=[ =\"'])/(srv|models|shared|local|var/lib)\b", rf"{folder}/\1", script)
    script = script.replace("--to VERSION", f"--to $(ls {folder}/srv/tts/releases | head -1)")
    hour = time.localtime().tm_hour
    script = script.replace("22:00-06:00", f"{hour:02}:00-{(hour + 2) % 24:02}:00")
    return script.replace("https://example.com", server)


@pytest.mark.parametrize(
    "page", [*PAGES[:1], *(pytest.param(page, marks=only_long("all pages")) for page in PAGES[1:])]
)
def test_every_command_is_run(page: str, environ: dict[str, str], tmp_path: Path, exit_code: ExitCode) -> None:
    """The shell blocks of a page, one after the other in one folder, run to their ends as they are written."""
    found = scripts(page)
    assert found, page
    (tmp_path / "work" / "catalog.toml").write_text(CATALOG.replace("URL", environ["PAGES"]))
    shell = Shell(tmp_path / "work", environ["HF_ENDPOINT"], {"HOME": str(tmp_path)})
    assert [exit_code(shell, *words.split()) for words in BEFORE] == [0] * len(BEFORE)
    for script in found:
        text = "set -eu\n" + placed(script, tmp_path, environ["PAGES"])
        ran = subprocess.run(
            ["bash", "-c", text], env=environ, cwd=tmp_path / "work", capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{text}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.parametrize("page", ["README.md", *USERS, *PLUGINS])
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    """A block of shell is run by this file, by the file that knows its mark, or says why it cannot be run."""
    for mark, text in blocks(page):
        if mark in ELSEWHERE:
            assert mark in (ROOT / ELSEWHERE[mark]).read_text("utf-8")
        elif not re.fullmatch(r"not run here: .{10,}", mark):
            assert (mark, page in (*PAGES, GENERATED)) == ("", True), f"{page}: {text}"


def test_every_command_is_one() -> None:
    """What the documents call ``mdl NAME`` is a command, also where it is only named."""
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("mdl/plugins/*/*.md")):
        for name in re.findall(r"[`(]mdl ([a-z]+)\b", page.read_text("utf-8")):
            assert name in commands(), f"{page.name}: mdl {name}"


def test_every_link_leads_somewhere() -> None:
    """Relative links of every document lead to files that are there, and to headings that these have."""
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("mdl/plugins/*/*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as both GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_front_page_is_short() -> None:
    """The README is a front page: at most 150 lines, and both of its commands are marked for CI."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"<!-- (\w+) -->\n```sh\n", text) == ["demo", "test"]


INSTALLED = re.compile(r"\b(?:pipx|pip|uv tool) install +((?:-[a-z-]+ +)*)(\S+)")
"""A command that installs: its flags, and the first thing that it installs."""


def named_by_index(text: str) -> list[str]:
    """What a page has pip look for on an index that is mdl itself."""
    found = [word.strip("`'\".,;:").partition("[")[0] for _, word in INSTALLED.findall(text)]
    return [word for word in found if word == "mdl"]


@pytest.mark.parametrize("page", ["README.md", *USERS, *PLUGINS])
def test_mdl_is_installed_from_a_clone(page: str) -> None:
    """Until it is published, no page has pip look for mdl or an extra of it on an index, or invents an address: whose
    repository it is, is one variable of the shell."""
    text = (ROOT / page).read_text("utf-8")
    assert named_by_index(text) == []
    assert re.findall(r"(?<!\$)\bOWNER/mdl", text) == []
    assert "'mdl[" not in text
    assert "or from a package index" not in text


@pytest.mark.parametrize("line", ["pipx install mdl", "pip install -q 'mdl[s3]'", "uv tool install --force mdl."])
def test_an_index_is_noticed(line: str) -> None:
    """A line that would fetch mdl from an index is found; one that installs a checkout is not."""
    assert named_by_index(f"Run `{line}` now") == ["mdl"]
    assert named_by_index("pipx install --force '.[s3]'; pip install -q -e '.[test]'; pip install .") == []


COLUMNS = 75
"""What a block of code of the site shows; the rest is cut off."""


@pytest.mark.parametrize("page", ["README.md", *USERS, *PLUGINS])
def test_nothing_is_cut_off(page: str) -> None:
    """A line of code fits into its block, with its comment above it; a cell of a table has no backslash in its code.
    The README's two commands for CI are one line each, which .ci/common.sh reads."""
    text = re.sub(r"<!-- (?:demo|test) -->\n```sh\n.*\n```", "", (ROOT / page).read_text("utf-8"))
    code = "\n".join(re.findall(r"^ *```.*\n((?:.*\n)*?) *```$", text, re.MULTILINE)).split("\n")
    assert [line for line in code if len(line) > COLUMNS] == []
    assert [line for line in code if re.match(r"(?:mdl|pipx|docker) .* # ", line)] == []
    cells = [line for line in text.split("\n") if line.startswith("|")]
    assert [line for line in cells if re.search(r"`[^`|]*\\\\\|", line)] == []


def test_the_number_of_exit_codes() -> None:
    """The comparisons count what the table of exit codes has."""
    for page in ("README.md", "docs/comparison.md"):
        [count] = re.findall(r"Number of exit codes \| (\d+) \|", (ROOT / page).read_text("utf-8"))
        assert int(count) == len(EXIT_CODES)


WORDS = 24_000
"""What a user may have to read in all. A table's bars and a block's fences are no words."""


def test_a_user_can_read_it_all() -> None:
    """The pages of the site are short enough."""
    words = [word for page in (*USERS, *PLUGINS) for word in (ROOT / page).read_text("utf-8").split()]
    assert len([word for word in words if re.search(r"\w", word)]) < WORDS


@pytest.mark.parametrize("picture", ["resume", "release"])
def test_a_picture_begins_with_its_end(picture: str) -> None:
    """The first frame of an animation, which a printer shows, is its last screen."""
    text = (ROOT / "docs" / "pictures" / f"{picture}.svg").read_text("utf-8")
    steps = {name: re.findall(r"([0-9.]+)% { visibility: (\w+) }", rule) for name, rule in re.findall(KEYFRAMES, text)}
    rows = re.findall(r'class="row( last)?" style="animation: (k\d+) ([0-9.]+)s step-end (-[0-9.]+)s', text)
    assert rows
    for last, name, total, delay in rows:
        at = -100 * float(delay) / float(total)
        shown = [look for percent, look in steps[name] if float(percent) <= at + 0.5][-1]
        assert (shown == "visible") == bool(last), name
    assert "@media print" in text


KEYFRAMES = r"@keyframes (k\d+) \{ (.*) \}"


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """The site of the docs in ``folder``, as CI builds it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with the documents, and without the pages of the plug-ins."""
    pytest.importorskip("material")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_the_strict_build_can_fail(docs: Path) -> None:
    """CI builds the site so that a link to a page that does not exist fails it: shown by a page that has one. Without
    a plug-in the site is whole, and code blocks have the class by which the style sheet wraps commands."""
    [line] = [line for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines() if "mkdocs build" in line]
    assert "--strict" in line
    assert "--quiet" not in line
    ran = built(docs)
    assert ran.returncode == 0, ran.stderr
    css = (docs / "docs" / "extra.css").read_text("utf-8")
    [language] = set(re.findall(r"\.(language-\w+)", css))
    assert f'<div class="{language} highlight">' in (docs / "site" / "guide.html").read_text("utf-8")
    with (docs / "docs" / "guide.md").open("a") as page:
        page.write("[gone](no-such-page.md)\n")
    ran = built(docs)
    assert (ran.returncode, "no-such-page.md" in ran.stderr) == (1, True)


def test_each_plugin_has_a_chapter(docs: Path) -> None:
    """The page of a plug-in is a chapter of "Many machines", one level lower, with links that lead somewhere."""
    for place in PLUGINS:
        (docs / place).parent.mkdir(parents=True)
        shutil.copy(ROOT / place, docs / place)
    ran = built(docs)
    assert ran.returncode == 0, ran.stderr
    page = (docs / "site" / "many-machines.html").read_text("utf-8")
    for place in PLUGINS:
        first, *rest = re.findall(r"^(#+) (.*)$", re.sub(r"(?ms)^```.*?^```", "", (ROOT / place).read_text()), re.M)
        assert (first[0], {mark for mark, _ in rest}) == ("#", {"##"})
        assert f">{first[1]}<" in page
        assert all(f"<h3 id={name!r}".replace("'", '"') in page for name in (slug(title) for _, title in rest))
    assert "../../../docs" not in page


def slug(title: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).strip().replace(" ", "-")
