"""The manifest: what is written is what json.dumps writes, and is read back."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from mdl.archive.manifest import SCHEMA, Manifest, ManifestEntry, Skipped

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
ENTRIES = st.builds(ManifestEntry, TEXT, st.integers(0, 2**63), st.text("0123456789abcdef", min_size=64, max_size=64))
MANIFESTS = st.builds(
    Manifest,
    st.lists(ENTRIES, max_size=4).map(tuple),
    run=TEXT,
    checkpoint=TEXT,
    step=st.none() | st.integers(0, 2**63 - 1),
    changed=st.lists(TEXT, max_size=2).map(tuple),
    skipped=st.lists(st.builds(Skipped, TEXT, TEXT), max_size=2).map(tuple),
)


@given(MANIFESTS)
def test_written_as_json_dumps_writes_it(manifest: Manifest) -> None:
    """The text is that of json.dumps with one space of indent, whatever the names are."""
    facts = {"schema": SCHEMA} | asdict(manifest)
    assert manifest.to_json().decode() == json.dumps(facts, indent=1) + "\n"
    assert Manifest.from_json(manifest.to_json()) == manifest
