"""An excerpt of a catalog means the same files as the whole of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_file import parse_lock
from mdl.catalog.model import Model
from mdl.catalog.reader import parse_catalog
from mdl.config import places
from mdl.errors import LockError
from mdl.ops.sub_catalog import excerpt
from mdl.paths import RelPath
from mdl.reports import LeftOutFile

ODD = """
schema = 1
[models."a model"]
title = 'say "hi" \\ ü'
kind = "tts"
source = ["hf:org/repo@refs/pr/1/sub", "hf:datasets/org/d@v1%2F2", "s3://bucket/pre fix", "https://h.example/dl?version=1"]
include = ["*.bin", "[ab]*"]
exclude = ["*.txt"]
mirrors = ["s3://bucket/mirror"]
[[models."a model".files]]
path = "sub/نام.bin"
url = "https://h.example/a%20b?filename=a%20b.bin#sha256=SHA"
mirrors = ["hf:org/other@main/x.bin"]
size = 0
[models.quant]
source = "hf:org/repo-GGUF:Q8_0"
[models.pinned]
source = "hf:org/repo"
revision = "v1.0"
""".replace("SHA", "a" * 64)


def locked(models: list[Model]) -> Lock:
    """A lock that covers the models, with one file each."""
    file = LockedFile(RelPath("f.bin"), "https://h.example/f.bin", 3)
    other = LeftOutFile("f.pt", 4)
    return Lock({model.name: LockedModel(model.name, entry_of(model), (file,), (other,)) for model in models})


@pytest.mark.parametrize("text", [ODD, places.SHIPPED.read_text("utf-8")])
def test_it_means_the_same(text: str) -> None:
    """Each entry, written anew and read back, is the entry that was locked; the lock of all others is left out."""
    catalog = parse_catalog(text, Path("catalog.toml"))
    models = [model for model in catalog.models.values() if not model.gone]
    lock = locked(models)
    found = excerpt(models, lock)
    again = parse_catalog(found.catalog, Path("catalog.toml"))
    assert {name: entry_of(model) for name, model in again.models.items()} == {
        model.name: entry_of(model) for model in models
    }
    assert all(parse_lock(found.lock).covers(model) for model in again.models.values())
    assert {one.left_out for one in parse_lock(found.lock).models.values()} == {(LeftOutFile("f.pt", 4),)}
    assert found.left_out == ()
    one = excerpt(models[:1], lock)
    names = [list(parse_catalog(one.catalog, Path("c.toml")).models), list(parse_lock(one.lock).models)]
    assert names == [[models[0].name]] * 2


def test_what_is_not_locked_is_refused() -> None:
    """A model that the lock does not cover would be another one on every machine."""
    catalog = parse_catalog(ODD, Path("catalog.toml"))
    with pytest.raises(LockError, match="not in the lock"):
        excerpt(list(catalog.models.values()), locked([]))


SECRET = """
schema = 1
[models.a]
source = "https://h.example/all?auth=S3CRET&revision=v1"
homepage = "https://h.example/a?token=S3CRET"
note = "see https://h.example/a?k=S3CRET"
[models.b]
mirrors = ["s3://bucket/mirror"]
[[models.b.files]]
path = "f.bin"
url = "https://h.example/f.bin?download=true"
mirrors = ["https://h.example/g.bin?S3CRET"]
size = 3
[[models.b.files]]
path = "g.bin"
url = "https://h.example/g.bin;sid=S3CRET#S3CRET"
size = 3
[[models.b.files]]
path = "h.bin"
url = "https://h.example/h.bin?version=2024-01-01"
size = 3
"""


def test_no_secret_of_a_url_leaves() -> None:
    """Whatever the parameter is called and wherever the URL stands, it is not in the texts, and its file or model is
    named. What is harmless stays, and the lock covers the entries as they are then."""
    models = list(parse_catalog(SECRET, Path("catalog.toml")).models.values())
    found = excerpt(models, locked(models))
    assert "S3CRET" not in found.catalog + found.lock
    assert found.left_out == ("a", "b/f.bin", "b/g.bin")
    for kept in ("?revision=v1", "f.bin?download=true", "h.bin?version=2024-01-01"):
        assert kept in found.catalog
    again = parse_catalog(found.catalog, Path("catalog.toml")).models
    assert all(parse_lock(found.lock).covers(model) for model in again.values())
