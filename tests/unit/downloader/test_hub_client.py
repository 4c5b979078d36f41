"""The hub's own client at work for mdl, with a hub that misbehaves: each fault is the right error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faults
from support.bench import stalled
from support.faulty_server import reply
from support.loopback_hub import LoopbackHub, Repo, Script, at_path

from mdl.downloader.hub_client import HubClient
from mdl.errors import MdlError
from mdl.files import HubFile
from mdl.net.allowlist import AllowList
from mdl.net.certificates import Trust

DATA = b"weights" * 10_000
COMMIT = "a" * 40
FILE = HubFile("org/tiny", "model", COMMIT, "model.bin")


REPO = Repo("org/tiny", {"model.bin": DATA}, commit=COMMIT, lfs_threshold=1000)
BODY, RESOLVE = "/xet-bridge-us/", "/resolve/"


def fetched(folder: Path, fault: Callable[[LoopbackHub], Script] | None = None, stall: float = 60.0) -> bytes:
    """What huggingface_hub fetches of a hub with this fault."""
    with LoopbackHub([REPO]) as hub:
        hub.script = fault(hub) if fault else None
        client = HubClient(hub.url, None, AllowList.of(["127.0.0.1"]), stall, Trust(os.environ), os.environ)
        return client.fetch(FILE, folder, lambda _count: None).read_bytes()


def test_an_honest_hub(tmp_path: Path) -> None:
    """The control: without a fault the file comes."""
    assert fetched(tmp_path) == DATA


@pytest.mark.fault(271)
def test_a_body_that_is_too_short(tmp_path: Path) -> None:
    """A file shorter than the hub said is not an error of the disk."""
    with pytest.raises(MdlError, match="should be of size 70000 but has size 500") as caught:
        fetched(tmp_path, lambda hub: at_path(BODY, faults.always(reply(200, DATA[:500]))))
    assert caught.value.exit_code == 5


@pytest.mark.fault(271)
def test_a_silent_hub(tmp_path: Path) -> None:
    """A hub that falls silent is given up when ``--stall`` says so."""
    with pytest.raises(MdlError, match="not a byte in 1 s") as caught:
        fetched(tmp_path, lambda hub: at_path(BODY, stalled(hub.ordinary, 500)), stall=1.0)
    assert caught.value.exit_code == 5


@pytest.mark.fault(272)
@pytest.mark.parametrize(
    "tag", ["a/b", "../../../x", "e" * 300, "a b", ""], ids=["a folder", "dots", "long", "a blank", "empty"]
)
def test_an_etag_that_is_no_name(tmp_path: Path, tag: str) -> None:
    """An ETag that cannot be a file name, as the client uses it, is a lie: nothing is fetched."""
    lies = [("ETag", f'"{tag}"'), ("X-Linked-Etag", f'"{tag}"')]
    with pytest.raises(MdlError, match="ETag") as caught:
        fetched(tmp_path / "side", lambda hub: at_path(RESOLVE, faults.with_headers(hub.ordinary, *lies)))
    assert caught.value.exit_code == 6
    assert not list(tmp_path.rglob("*.incomplete"))
