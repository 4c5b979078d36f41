"""docs/configuration.md: written from the table of settings, with an example that is right."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import mdl
from mdl.catalog.reader import parse_catalog
from mdl.config.settings import check_config, settings_table
from mdl.errors import LockError

ROOT = Path(mdl.__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "configuration.py"))
PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")
OTHERS = re.compile(r'"((?:HF|HUGGING|TRANSFORMERS|AWS|SSL|XDG|RUNPOD)_[A-Z_]+|NO_COLOR|TERM|COLUMNS|[A-Z]+_PROXY)"')
OF_OTHERS_LIBRARIES = {"HF_HUB_DOWNLOAD_TIMEOUT", "HF_XET_CACHE", "HF_XET_LOG_DEST", "HF_XET_TELEMETRY_ENABLED"}
"""What mdl sets for the libraries of Hugging Face, and does not read."""


def test_it_is_up_to_date() -> None:
    """The tables are what `python docs/configuration.py` writes; --check says so."""
    assert SCRIPT["page"](PAGE) == PAGE
    assert SCRIPT["main"](["--check"]) == 0


def test_check_sees_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check is 1 for another table, and writes nothing; without it the table is written."""
    page = tmp_path / "configuration.md"
    page.write_text(PAGE.replace("| `retries`<br>", "| `tries`<br>"))
    monkeypatch.setitem(SCRIPT["main"].__globals__, "PAGE", page)
    assert (SCRIPT["main"](["--check"]), "`tries`" in page.read_text()) == (1, True)
    assert (SCRIPT["main"]([]), page.read_text()) == (0, PAGE)


def test_every_setting_is_there() -> None:
    """Each setting has one row, with its flag and its variable."""
    for name, setting in settings_table().items():
        [row] = re.findall(rf"^\| `{re.escape(name)}`(?: \||<br>).*$", PAGE, re.MULTILINE)
        assert [one in row for one in (setting.flag_name, setting.variable_name)] == [True, True]


def test_the_examples_are_right() -> None:
    """The whole config.toml and the hosts have no mistake, and the catalog is one."""
    hosts, config, catalog = (text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    found = check_config(Path("config.toml"), config)
    assert (found["remotes"]["gpu"].kind, list(found["hosts"])) == ("runpod", ["civitai.com"])
    ways = [one.send for one in check_config(Path("config.toml"), hosts)["hosts"].values() if one.has_credential]
    assert ways == ["bearer", "header:PRIVATE-TOKEN", "basic", "basic"]
    with pytest.raises(LockError, match="on the web"):
        parse_catalog(catalog.replace('"../team.toml", ', ""), Path("catalog.toml"))


def test_every_variable_that_is_read_is_there() -> None:
    """What the code names of other programs' variables stands on the page."""
    texts = [path.read_text("utf-8") for path in (ROOT / "mdl").rglob("*.py")]
    read = {name for text in texts for name in OTHERS.findall(text)} - OF_OTHERS_LIBRARIES
    assert len(read) > 20
    assert {name for name in read if f"`{name}`" not in PAGE} == set()
