"""The status page of `mdl serve` in a real Chromium: on a phone and on a desk, light and dark, while a job goes on.

It takes some ten seconds, and is run with MDL_LONG=1. With ``PAGE_PICTURES=DIR`` the pictures stay there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import Browser, browser, chromium
from support.data import MIB, noise
from support.long import LONG
from support.loopback_hub import LoopbackHub, Repo
from support.releases import Site
from support.runs import put
from support.serving import TOKEN, client_of, served
from support.shell import Shell, done, machine

pytestmark = [
    pytest.mark.skipif(not LONG, reason="set MDL_LONG=1: it takes ten seconds"),
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (Debian: apt install chromium)"),
]
TITLE = "A model with a title that is long enough to need several lines on the screen of a small phone"
CATALOG = f"""schema = 1
[models.whole]
title = "All of it is here"
source = "hf:org/tiny"
[models.half]
title = "{TITLE}"
kind = "tts"
source = "hf:org/tiny"
[models.a-model-whose-name-is-so-long-that-no-phone-has-room-for-it-in-one-line]
source = "hf:org/none"
[models.slow]
title = "<img src=x onerror=alert(1)>"
source = "hf:org/slow"
"""
SIZES = {"phone": (360, 740), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A machine with a whole model, a half one, and a job that takes long."""
    files = {"config.json": b"{}", "model.bin": noise(2 * MIB, 1), "vocab.txt": b"a"}
    repos = [Repo("org/tiny", files), Repo("org/slow", {"w.bin": noise(8 * MIB, 2)})]
    with LoopbackHub(repos) as hub:
        home = tmp_path / "head"
        monkeypatch.setenv("HOME", str(home))
        shell = machine(home, CATALOG, hub.url)
        client_of(shell).download(["whole", "half"]).raise_for_errors()
        (shell.models / "half" / "vocab.txt").unlink()
        hub.bytes_per_second = 50_000.0
        job = done(shell.run("get", "slow", "--detach")).out.strip()
        yield shell
        done(shell.run("jobs", "cancel", job))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", SIZES)
def test_the_page(head: Shell, chrome: Browser, screen: str, dark: bool, tmp_path: Path, site: Site) -> None:
    """Everything is told on every screen: no line is wider than the screen, every bar and button has a name, text
    stands out from its ground, a filter shows what it says, and a job's progress moves by itself."""
    put(tmp_path / "runs/tts/checkpoint-5/model.safetensors", {})
    site.release("A")
    width, height = SIZES[screen]
    with served(head, runs=(tmp_path / "runs",), releases=(site.folder,), token=TOKEN) as server:
        chrome.logged.clear()
        chrome.open(server.url.replace("//", f"//any:{TOKEN}@"), width=width, height=height, dark=dark)
        chrome.until("document.querySelectorAll('#models li').length === 4")
        shown = chrome.value("document.body.innerText")
        for text in ("half", TITLE, "partial", "missing", "org/tiny", "served", "tts", "running", "current"):
            assert text in shown, text
        assert "<img src=x" in shown  # a title is text, whatever stands in it
        assert "On this machine" in shown
        assert chrome.value("document.documentElement.scrollWidth") <= width
        assert chrome.value(
            "[...document.querySelectorAll('progress, button')].every(one => one.ariaLabel || one.innerText)"
        )
        assert chrome.value(_LEAST_CONTRAST) >= 4.5
        assert (
            chrome.value("Math.min(...[...document.querySelectorAll('button:not([hidden])')].map(b => b.offsetHeight))")
            >= 36
        )
        if folder := os.environ.get("PAGE_PICTURES"):
            chrome.picture(Path(folder) / f"serve-{screen}-{'dark' if dark else 'light'}.png")
        before = chrome.value("document.querySelector('progress').value")
        chrome.until(f"document.querySelector('progress').value > {before}")
        chrome.value("[...document.querySelectorAll('button')].find(b => b.innerText.startsWith('partial')).click()")
        names = chrome.value("[...document.querySelectorAll('#models .name')].map(one => one.innerText)")
        assert set(names) <= {"half", "slow"}
        assert chrome.logged == []
    chrome.until("document.querySelector('.problem')?.innerText.startsWith('The server does not answer')")
    chrome.call("Page.navigate", url="about:blank")


@pytest.mark.parametrize("count", [0, 300])
def test_how_much_there_is(chrome: Browser, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty disk is told so, with what to do; of 300 models the first fifty are shown, and the others on demand."""
    monkeypatch.setenv("HOME", str(tmp_path))
    models = "".join(f'[models.m{number}]\nsource = "hf:org/m{number}"\n' for number in range(count))
    with served(machine(tmp_path, f"schema = 1\n{models}"), token=TOKEN if count else None) as server:
        chrome.open(server.url.replace("//", f"//any:{TOKEN}@") if count else server.url, width=360, height=740)
        chrome.until("document.getElementById('age')?.textContent.startsWith('As of')")
        shown = chrome.value("document.body.innerText")
        assert ("Nothing is here yet" in shown, "show 250 more" in shown) == (not count, bool(count))
        if count:
            assert "HF_TOKEN=TOKEN" in chrome.value("document.getElementById('endpoint').textContent")
            chrome.value("document.getElementById('more').click()")
            assert chrome.value("document.querySelectorAll('#models li').length") == count
    chrome.call("Page.navigate", url="about:blank")


_LEAST_CONTRAST = """(() => {
  const light = (text) => {
    const parts = text.match(/[0-9.]+/g).slice(0, 3).map((one) => one / 255)
      .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const found = getComputedStyle(one).backgroundColor;
      if (!found.endsWith(", 0)")) return found;
    }
    return "rgb(255, 255, 255)";
  };
  return Math.min(...[...document.querySelectorAll("h1, h2, small, p, code, button, span")]
    .filter((one) => one.innerText && one.offsetParent).map((one) => {
      const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }));
})()"""
"""The least contrast of a text and its ground (WCAG 2, 1.4.3)."""
