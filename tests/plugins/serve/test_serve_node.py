"""`mdl serve` for the hub's client in JavaScript, ``@huggingface/hub``.

It needs node, and in the variable HUB_JS the folder in which ``npm install @huggingface/hub`` was run: `.ci/long` makes
one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.data import MIB, files_below, noise
from support.loopback_hub import LoopbackHub, Repo
from support.serving import client_of, served
from support.shell import machine

HUB_JS = os.environ.get("HUB_JS", "")
FILES = {"config.json": b"{}", "model.bin": noise(2 * MIB, 3), "sub/vocab.txt": b"hello\n"}
SCRIPT = """
import { listFiles, downloadFile, modelInfo, pathsInfo, fileExists, snapshotDownload } from "@huggingface/hub";
const [hubUrl, cacheDir] = process.argv.slice(2), repo = "org/tiny", found = { files: [] };
console.debug = () => {};
for await (const one of listFiles({ repo, hubUrl, recursive: true })) found.files.push([one.type, one.path, one.size]);
found.info = (await modelInfo({ name: repo, hubUrl })).name;
const large = await downloadFile({ repo, path: "model.bin", hubUrl });
found.part = [...new Uint8Array(await large.slice(5, 9).arrayBuffer())];
found.large = (await large.arrayBuffer()).byteLength;
found.known = (await pathsInfo({ repo, paths: ["config.json", "none"], hubUrl })).map((one) => one.path);
found.none = await fileExists({ repo, path: "none", hubUrl });
found.snapshot = await snapshotDownload({ repo, hubUrl, cacheDir });
console.log("\\n" + JSON.stringify(found));
"""


@pytest.mark.skipif(not HUB_JS or shutil.which("node") is None, reason="HUB_JS names no folder with @huggingface/hub")
def test_the_hubs_client_in_javascript(tmp_path: Path) -> None:
    """It lists the files, reads a part of one and all of it, and takes a snapshot whose bytes are right."""
    with LoopbackHub([Repo("org/tiny", FILES)]) as hub:
        shell = machine(tmp_path / "head", endpoint=hub.url)
        client_of(shell).download("hf:org/tiny").raise_for_errors()
    script = Path(HUB_JS) / "mdl-serve.mjs"
    script.write_text(SCRIPT)
    with served(shell) as server:
        words = ["node", str(script), server.url, str(tmp_path / "cache")]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert [file for file in found["files"] if file[0] == "file"] == [
        ["file", name, len(FILES[name])] for name in FILES
    ]
    assert (found["info"], found["large"], found["known"]) == ("org/tiny", 2 * MIB, ["config.json"])
    assert (bytes(found["part"]), found["none"]) == (FILES["model.bin"][5:9], False)
    assert files_below(Path(found["snapshot"])) == FILES
