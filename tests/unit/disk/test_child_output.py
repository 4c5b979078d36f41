"""What programs say is read while they run, within bounds."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

import mdl
from mdl.bounds import LARGEST_NOTE
from mdl.cancel import CancelToken
from mdl.disk.child_output import output_of
from mdl.errors import Cancelled


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_what_a_program_says() -> None:
    """Both outputs and the exit status, whatever the bytes are."""
    said = output_of(sh("printf 'a\\377'; echo b >&2; exit 3"))
    assert (said.code, said.out, said.err) == (3, "a�", "b\n")


def test_one_that_says_too_much_is_ended() -> None:
    """Reading stops at the bound; of the errors the last are kept."""
    said = output_of(sh("exec cat /dev/zero"), most=1000)
    assert (said.is_too_long, len(said.out)) == (True, 1000)
    said = output_of(sh("head -c 1000000 /dev/zero >&2; echo last >&2; echo all"))
    assert (said.is_too_long, said.out, len(said.err)) == (False, "all\n", LARGEST_NOTE)
    assert said.err.endswith("last\n")


def test_one_that_leaves_its_outputs_to_others(tmp_path: Path) -> None:
    """What a program leaves running behind it is not waited for."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    assert output_of(sh(f"echo done; cat {gate} &")).out == "done\n"
    gate.write_bytes(b"")  # only now it can end


def test_one_that_does_not_end() -> None:
    """Its time is over, or the caller's: it is ended, also if it does not want to."""
    assert output_of(sh("exec sleep 60"), seconds=0.1).is_late
    cancel = CancelToken()
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled):
        output_of(sh("exec cat /dev/zero >&2"), cancel=cancel)


def test_nobody_reads_without_a_bound() -> None:
    """No module of mdl takes all that a program says."""
    texts = {path: path.read_text("utf-8") for path in Path(mdl.__file__).parent.rglob("*.py")}
    assert [path for path, text in texts.items() if re.search(r"capture_output=|subprocess.check_output", text)] == []
    assert [path for path, text in texts.items() if ".communicate(" in text] == []
