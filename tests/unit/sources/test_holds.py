"""What a source holds: a file of it, told by whole segments and never by the beginning of a text."""

from __future__ import annotations

from support.cases import each

from mdl.paths import is_at_or_below
from mdl.sources import parse

COMMIT, OTHER = "a" * 40, "b" * 40
URL = "https://host.example/a/f.bin"
HELD = [
    (URL, URL),
    (f"{URL}#sha256={'0' * 64}", URL),
    (f"{URL}?v=2", f"{URL}?v=2"),
    ("hf:org/m", f"hf:org/m@{COMMIT}/a/f.bin"),
    ("hf:org/m@main/a", f"hf:org/m@{COMMIT}/a/f.bin"),
    ("hf:org/m@main/a/f.bin", f"hf:org/m@{COMMIT}/a/f.bin"),
    (f"hf:org/m@{COMMIT}", f"hf:org/m@{COMMIT}/a/f.bin"),
    ("hf:org/m:Q8_0", f"hf:org/m@{COMMIT}/f-Q8_0.gguf"),
    ("s3://bucket", "s3://bucket/a/f.bin"),
    ("s3://bucket/a", "s3://bucket/a/f.bin"),
    ("s3://bucket/a/", "s3://bucket/a/f.bin"),
]
NOT_HELD = [
    (URL, f"{URL}/../../x"),
    (URL, f"{URL}/x"),
    (URL, f"{URL}x"),
    (URL, f"{URL}?x=1"),
    (f"{URL}?v=2", URL),
    (f"{URL}?v=2", f"{URL}?v=3"),
    (URL, "https://host.example:444/a/f.bin"),
    (URL, "https://host.example.evil.example/a/f.bin"),
    (URL, "https://host.example/a/%2e%2e/a/f.bin"),
    (URL, "http://host.example/a/f.bin"),
    ("hf:org/m", f"hf:org/mm@{COMMIT}/f.bin"),
    ("hf:org/m", f"hf:datasets/org/m@{COMMIT}/f.bin"),
    ("hf:org/m@main/a", f"hf:org/m@{COMMIT}/ab/f.bin"),
    ("hf:org/m@main/a", f"hf:org/m@{COMMIT}/f.bin"),
    ("hf:org/m@main/a/f.bin", f"hf:org/m@{COMMIT}/b/f.bin"),
    (f"hf:org/m@{COMMIT}", f"hf:org/m@{OTHER}/a/f.bin"),
    ("s3://bucket/a", "s3://bucket/ab/f.bin"),
    ("s3://bucket/a", "s3://bucket/f.bin"),
    ("s3://bucket/a", "s3://bucket2/a/f.bin"),
    ("s3://bucket/a", "https://bucket.example/a/f.bin"),
    ("hf:org/m", URL),
]


@each(("source", "place"), HELD)
def test_what_a_source_holds(source: str, place: str) -> None:
    assert parse(source, ()).holds(parse(place, ()))


@each(("source", "place"), NOT_HELD)
def test_what_a_source_does_not_hold(source: str, place: str) -> None:
    assert not parse(source, ()).holds(parse(place, ()))


def test_below_is_by_whole_segments() -> None:
    """``ab`` is not in ``a``; everything is in the folder of all."""
    assert all(is_at_or_below(path, "a") for path in ("a", "a/", "a/b", "a/b/c"))
    assert all(is_at_or_below(path, "a/") for path in ("a", "a/b"))
    assert not any(is_at_or_below(path, "a") for path in ("", "ab", "b/a", "A/b"))
    assert all(is_at_or_below(path, "") for path in ("", "a/b"))
