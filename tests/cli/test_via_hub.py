"""``--via hub``: the hub's own client carries, mdl still verifies. With the real huggingface_hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.loopback_hub import Generated, LoopbackHub, Repo
from support.schemas import document_of

_WEIGHTS = Generated(4 * 2**20, 3)


def _get(
    hub: LoopbackHub, home: Path, *flags: str, extra: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any], str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **(extra or {}),
    }
    command = [sys.executable, "-m", "mdl", "get", "hf:demo/tiny", "--to", str(home / "models"), "--json", *flags]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, document_of(done.stdout), done.stderr


def test_the_hub_client_carries_and_mdl_verifies(tmp_path: Path) -> None:
    """With --via hub the bytes are asked for by huggingface_hub, and the report says which digest they were held to."""
    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", "model.bin": _WEIGHTS})]) as hub:
        code, report, errors = _get(hub, tmp_path, "--via", "hub")
        agents = {r.headers.get("user-agent", "") for r in hub.requests if r.origin == "cdn"}
    assert code == 0, errors
    assert all("hf_hub/" in agent for agent in agents)
    assert agents
    files = report["models"][0]["files"]
    assert [file["verified"] for file in files] == ["git-sha1", "sha256"]
    folder = tmp_path / "models" / "demo--tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin"]
    assert (folder / "model.bin").read_bytes() == _WEIGHTS[0 : len(_WEIGHTS)]


def test_mdl_carries_by_itself_without_the_flag(tmp_path: Path) -> None:
    """Without --via hub no request is the hub client's own."""
    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", "model.bin": _WEIGHTS})]) as hub:
        code, _, errors = _get(hub, tmp_path)
        agents = {r.headers.get("user-agent", "") for r in hub.requests}
    assert code == 0, errors
    assert not any("hf_hub/" in agent for agent in agents)


def test_the_environment_chooses_too(tmp_path: Path) -> None:
    """MDL_VIA=hub means what --via hub means."""
    with LoopbackHub([Repo("demo/tiny", {"model.bin": _WEIGHTS})]) as hub:
        code, _, errors = _get(hub, tmp_path, extra={"MDL_VIA": "hub"})
        agents = {r.headers.get("user-agent", "") for r in hub.requests if r.origin == "cdn"}
    assert code == 0, errors
    assert agents
    assert all("hf_hub/" in agent for agent in agents)


def test_a_gated_repository_is_told_as_such(tmp_path: Path) -> None:
    """What the hub's client raises becomes mdl's own error with exit code 4 and no traceback."""
    with LoopbackHub([Repo("demo/tiny", {"model.bin": _WEIGHTS}, gated=True)]) as hub:
        code, report, errors = _get(hub, tmp_path, "--via", "hub")
    assert code == 4
    assert report["error"]["code"] == "AUTH"
    assert "Traceback" not in errors
