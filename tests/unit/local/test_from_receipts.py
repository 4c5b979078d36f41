"""What receipts and references tell of a model."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.files import HubFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.local.from_receipts import at_its_hub, fetched_files, meant_paths, model_of
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin

COMMIT, OLDER = "c" * 40, "d" * 40
DIGEST, NEWER = Digest("sha256", "ab" * 32), Digest("sha256", "cd" * 32)
PATHS = st.frozensets(st.sampled_from("abcd"))


def receipt(model: str, path: str, commit: str = "", *, endpoint: str = "") -> Receipt:
    hub = HubFile("org/m", "model", commit, path, endpoint=endpoint) if commit else None
    return Receipt(model, RelPath(path), Stamp(1, 2, 3), DIGEST, "sha256", f"https://h/{path}", hub=hub)


def test_what_a_reference_means() -> None:
    """A reference with a revision means what the receipts say is of it; one with a path means what is below it; a name
    means everything."""
    receipts = {"x/a": receipt("m", "x/a", COMMIT), "x/b": receipt("m", "x/b", OLDER), "c": receipt("m", "c", COMMIT)}
    paths = [*receipts, "x/stranger"]

    def meant(origin: str, **part: str) -> set[str]:
        model = Model("m", sources=(HubOrigin("org/m", **part),), origin=origin)  # type: ignore[arg-type]
        return meant_paths(model, paths, receipts)

    assert meant(COMMAND_LINE) == set(paths)
    assert meant(COMMAND_LINE, revision=COMMIT) == {"x/a", "c"}
    assert meant(COMMAND_LINE, subpath="x") == {"x/a", "x/b", "x/stranger"}
    assert meant(COMMAND_LINE, revision=OLDER, subpath="x") == {"x/b"}
    assert meant("catalog.toml", revision=COMMIT) == set(paths)


def test_a_model_that_only_receipts_tell_of() -> None:
    """Its sources are those of the receipts; without a hub they are its files. A reference means their hub, if it is
    one."""
    at_hub = [receipt("org--m", "a", COMMIT, endpoint="https://hub"), receipt("org--m", "b", COMMIT)]
    assert [str(origin) for origin in model_of("org--m", at_hub[:1]).sources] == [f"hf:org/m@{COMMIT}"]
    assert model_of("org--m", at_hub[:1]).label == "org/m"
    assert [file.path.text for file in model_of("n", [receipt("n", "a")]).files] == ["a"]
    model = Model("org--m", sources=(HubOrigin("org/m"),))
    [origin] = at_its_hub(model, at_hub[:1]).sources
    assert (origin, at_its_hub(model, at_hub)) == (HubOrigin("org/m", endpoint="https://hub"), model)


@given(fetched=PATHS, listed=PATHS, moved=PATHS, wanted=PATHS, is_exact=st.booleans())
def test_the_files_that_are_meant(
    fetched: frozenset[str], listed: frozenset[str], moved: frozenset[str], wanted: frozenset[str], is_exact: bool
) -> None:
    """Each file that came or is listed is meant once, and as it came if its source has moved on; only what is listed,
    did not come and was not wanted is optional, and nothing is if exactly these files are meant."""
    receipts = [receipt("m", path, COMMIT) for path in fetched]
    listing = []
    for path in listed:
        remote = receipt("m", path, COMMIT).remote
        listing.append(replace(remote, digest=NEWER if path in moved else DIGEST))
    meant = fetched_files(receipts, listing, wanted, is_exact=is_exact)
    files = {file.path.text: file for file in meant.files}
    assert list(files) == sorted(fetched | listed)
    assert all(one.matches(files[one.path.text]) for one in receipts)
    assert {path.text for path in meant.optional} == (set() if is_exact else listed - fetched - wanted)
    assert meant.is_complete == (is_exact or wanted <= fetched | listed)
