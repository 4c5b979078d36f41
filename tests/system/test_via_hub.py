"""``--via hub``: huggingface_hub, the real one, fetches from a hub on loopback, and mdl still verifies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.relay import relaying, socks5
from support.shell import Shell, done, machine
from support.xet_store import XetStore, xet_hub

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


def test_silence_of_xet(tmp_path: Path, xet_store: XetStore) -> None:
    """If the hub's client hangs in Xet, --stall ends that with 5, and a hint at what goes on where it stopped."""
    with xet_hub(xet_store, lambda _request, answer: replace(answer, body=b"", end="hang")) as (hub, _):
        shell = machine(tmp_path, endpoint=hub.url, HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
        ran = done(shell.run("get", "hf:demo/tiny", "--via", "hub", "--stall", "1s", "--retries", "1"), 5)
    assert "not a byte in 1 s" in ran.err
    assert "without --via hub" in ran.err


def test_no_telemetry(tmp_path: Path, xet_store: XetStore) -> None:
    """The hub's client sends nothing to Xet's storage but what is needed to read from it."""
    with xet_hub(xet_store) as (hub, storage):
        done(machine(tmp_path, endpoint=hub.url).run("get", "hf:demo/tiny", "--via", "hub"))
        assert {one.method for one in storage.requests} == {"GET"}


@pytest.mark.parametrize("value", ["odd://me:passw0rd@proxy", "http://[::1"])
def test_variables_that_cannot_be_used(tmp_path: Path, value: str) -> None:
    """The hub's client goes the way of mdl's own requests: an unusable proxy or key log is a warning, and no error."""
    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}"})]) as hub:
        unusable = {"ALL_PROXY": value, "HTTP_PROXY": value, "SSLKEYLOGFILE": str(tmp_path / "missing" / "keys")}
        ran = done(machine_of(tmp_path, hub, **unusable, NO_PROXY="").run("get", "hf:demo/tiny", "--via", "hub"))
    assert (tmp_path / "models" / "demo--tiny" / "config.json").read_bytes() == b"{}"
    assert "ALL_PROXY is not used" in ran.err
    assert "passw0rd" not in ran.err


@pytest.mark.parametrize("exempt", ["", "127.0.0.0/8"])
def test_the_hubs_client_has_mdls_proxy(tmp_path: Path, exempt: str) -> None:
    """``socks://`` is a proxy for it too, and a block of NO_PROXY exempts it."""
    asked: list[str] = []
    with (
        LoopbackHub([Repo("demo/tiny", {"config.json": b"{}"})]) as hub,
        relaying(int(hub.url.rpartition(":")[2]), socks5(asked)) as proxy,
    ):
        variables = {"ALL_PROXY": f"socks://127.0.0.1:{proxy.port}/", "NO_PROXY": exempt}
        done(machine_of(tmp_path, hub, **variables).run("get", "hf:demo/tiny", "--via", "hub"))
    assert bool(asked) is not bool(exempt)
