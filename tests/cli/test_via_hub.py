"""``--via hub``: huggingface_hub, the real one, fetches from a hub on loopback, and mdl still verifies."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.shell import Shell, done, machine

WEIGHTS = Generated(4 * 2**20, 3)


def machine_of(home: Path, hub: LoopbackHub, **variables: str) -> Shell:
    return machine(home, endpoint=hub.url, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", **variables)


@pytest.mark.parametrize(
    ("flags", "variables", "is_hub"),
    [(("--via", "hub"), {}, True), ((), {"MDL_VIA": "hub"}, True), ((), {}, False)],
)
def test_who_fetches_the_bytes(tmp_path: Path, flags: tuple[str, ...], variables: dict[str, str], is_hub: bool) -> None:
    """With --via hub, or MDL_VIA=hub, huggingface_hub asks for the bytes, and without them no request is its own. The
    report says by which digest mdl verified each file."""
    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", "model.bin": WEIGHTS})]) as hub:
        shell = machine_of(tmp_path, hub, **variables)
        report = done(shell.run("get", "hf:demo/tiny", "--json", *flags)).document
        agents = [one.headers.get("user-agent", "") for one in hub.requests if one.origin == "cdn" or not is_hub]
    assert {"hf_hub/" in agent for agent in agents} == {is_hub}
    assert [file["verified"] for file in report["models"][0]["files"]] == ["git-sha1", "sha256"]
    folder = shell.models / "demo--tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin"]
    assert (folder / "model.bin").read_bytes() == WEIGHTS[0 : len(WEIGHTS)]


def test_a_gated_repository_is_told_as_such(tmp_path: Path) -> None:
    """What the hub's client raises becomes mdl's own error with exit code 4 and no traceback."""
    with LoopbackHub([Repo("demo/tiny", {"model.bin": WEIGHTS}, gated=True)]) as hub:
        ran = done(machine_of(tmp_path, hub).run("get", "hf:demo/tiny", "--json", "--via", "hub"), 4)
    assert ran.document["error"]["code"] == "AUTH"
