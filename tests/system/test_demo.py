"""``mdl demo``: the whole main job, with no network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.long import only_long
from support.shell import Shell
from support.terminal import Screen, Terminal

_SMALL = """\
import sys
import mdl.demo
from mdl.cli.main import run
mdl.demo._WEIGHTS = 6 * 2**20
sys.exit(run(sys.argv[1:]))
"""


def test_the_demo_ends_well(tmp_path: Path) -> None:
    """It lists, loses a connection, is killed, resumes, verifies, asks for nothing twice; it packs, releases and rolls
    back; and it says where everything is."""
    shell = Shell(tmp_path)
    command = [sys.executable, "-c", _SMALL, "demo", "--in", str(tmp_path / "play")]
    ran = subprocess.run(command, env=shell.environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    out, err = ran.stdout, ran.stderr
    assert ran.returncode == 0, out + err
    assert (tmp_path / "play" / "models" / "tiny-demo" / "model.safetensors").stat().st_size == 6 * 2**20
    assert "Requests made: 0" in out
    assert "retrying" in err.partition("resumed at")[0]
    assert "resumed at" in err
    assert f"Everything is in {tmp_path / 'play'}." in out
    assert {place.name for place in tmp_path.iterdir()} == {"play"}  # no job, log or setting in the user's home
    assert [line.split(".")[0] for line in out.splitlines() if line[:1].isdigit()] == [str(n) for n in range(1, 11)]
    served = (tmp_path / "play" / "service" / "current").resolve()
    assert served.name.startswith("step-200-")
    assert len(list(served.parent.iterdir())) == 2
    assert (served / "model.safetensors").stat().st_size > 2**20
    assert not (served / "optimizer.pt").exists()


@only_long("the demo once more")
def test_the_demo_on_a_terminal(tmp_path: Path) -> None:
    """On eighty columns every heading is bold and stands alone below an empty line, nothing is escaped, and the
    story goes on below the bars of the killed command. Its temporary folder is gone in the end."""
    (tmp_path / "tmp").mkdir()
    shell, seen = Shell(tmp_path, extra={"TERM": "xterm", "TMPDIR": str(tmp_path / "tmp")}), Terminal(80)
    command = [sys.executable, "-c", _SMALL, "demo"]
    ran = subprocess.run(command, env=shell.environ, cwd=tmp_path, stdout=seen.file, stderr=seen.file, check=False)
    text = seen.text()
    assert ran.returncode == 0, text
    screen = Screen(text.replace("\r\n", "\n").replace("\n", "\r\n"), 80)
    rows = [row.rstrip() for row in screen.rows]
    titles = [row for row in rows if re.match(r"\d+\. ", row)]
    assert [title.split(".")[0] for title in titles] == [str(number) for number in range(1, 11)]
    assert all(not rows[rows.index(title) - 1] for title in titles)
    assert all(f"\x1b[1m{title}\x1b[0m" in text for title in titles)
    assert ("\\n" in text, screen.cursor) == (False, True)
    [killed] = [number for number, row in enumerate(rows) if "killed after" in row]
    assert re.fullmatch(r"   One connection broke; mdl was killed after \d+ of 6 MB were served\.", rows[killed])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_demo_leaves_a_folder_in_use_alone(tmp_path: Path) -> None:
    """A folder that holds something is refused with 7, and stays as it is."""
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "mine.txt").write_text("mine")
    ran = Shell(tmp_path).run("demo", "--in", str(tmp_path / "play"), "--json")
    assert (ran.code, ran.document["error"]["code"]) == (7, "OCCUPIED")
    assert [entry.name for entry in (tmp_path / "play").iterdir()] == ["mine.txt"]
