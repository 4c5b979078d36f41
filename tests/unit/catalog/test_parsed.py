"""Large catalogs: what was parsed once is kept by the digest of the text, and means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mdl.catalog import parsed
from mdl.catalog.parsed import ParsedCatalogs
from mdl.catalog.reader import read_catalog
from mdl.toml import parse_toml


def large(number: int = 0, more: str = "") -> str:
    """A catalog of so much text that its parsed form is kept."""
    models = "".join(f'[models.m{n}]\nsource = "hf:org/r{n}"\n' for n in range(30))
    last = f"[models.last]\nsource = 'hf:o/m'\ntitle = 'é'\nx-n = {number}\nx-f = 1.5\n{more}"
    return f"schema = 1\n{models}{last}#{'x' * 2**20}\n"


def test_it_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reading has the same models without a look at the TOML; another text is parsed itself."""
    texts: list[str] = []

    def counted(text: str) -> dict[str, Any]:
        texts.append(text)
        return parse_toml(text)

    monkeypatch.setattr(parsed, "parse_toml", counted)
    catalog, base = tmp_path / "catalog.toml", tmp_path / "base.toml"
    catalog.write_text('schema = 1\nextends = ["base.toml"]\n')
    base.write_text(large())
    readings = [read_catalog([catalog], parse=ParsedCatalogs(tmp_path / "kept")) for _ in range(3)]
    assert readings[0].models == readings[1].models == readings[2].models
    assert sum(len(text) > 2**20 for text in texts) == 1
    base.write_text(large(1))
    read_catalog([catalog], parse=ParsedCatalogs(tmp_path / "kept"))
    assert sum(len(text) > 2**20 for text in texts) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 100, b'{"parsed": 1}'])
def test_damage_is_parsed_anew(tmp_path: Path, damage: bytes) -> None:
    """What is kept and damaged is as if it were not there."""
    read = ParsedCatalogs(tmp_path)
    first = read(large())
    [kept] = tmp_path.glob("*.json")
    kept.write_bytes(damage)
    assert read(large()) == first == parse_toml(large())


def test_only_a_few_are_kept(tmp_path: Path) -> None:
    """Of many versions of a catalog the last few are kept, and none that JSON cannot hold, of small ones none."""
    read = ParsedCatalogs(tmp_path / "kept")
    for number in range(7):
        assert read(large(number)) == parse_toml(large(number))
    assert len([*(tmp_path / "kept").iterdir()]) == 4
    other = ParsedCatalogs(tmp_path / "other")
    dated = large(more="x-d = 2024-01-01\n")
    assert other(dated) == parse_toml(dated)
    assert other("schema = 1") == {"schema": 1}
    assert not [*tmp_path.glob("other/*.json")]
