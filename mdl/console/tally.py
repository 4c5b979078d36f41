"""Tally: what became of many files, and the words for it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mdl.describe import CHECKS, SENT, WAYS
from mdl.events import Finished
from mdl.formatting import counted, human_bytes, human_elapsed, human_rate

_WAYS = {"kept": "already here", **WAYS}
_DOWNLOADED = {"fetched", "linked", *_WAYS}
"""The actions of a download, and how files come from this disk."""


@dataclass
class Tally:
    """What became of some files. Sizes are in bytes; ``fetched`` bytes came from the network."""

    files: int = 0
    failed: int = 0
    size: int = 0
    fetched: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)

    def add(self, event: Finished, fetched: int) -> None:
        self.files += 1
        self.size += event.size
        self.fetched += fetched
        self.ways[event.way or event.action] += 1
        self.checks[event.verified] += 1

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Tally:
        """All of them together."""
        total = cls()
        for tally in tallies:
            total.files += tally.files
            total.failed += tally.failed
            total.size += tally.size
            total.fetched += tally.fetched
            total.ways += tally.ways
            total.checks += tally.checks
        return total

    @property
    def checked(self) -> str:
        """``sha256 and git-sha1 ok (1 unverified)``."""
        if not self.hashes:
            return self.weakly_checked
        return f"{self.hashes} ok{in_brackets(self.weakly_checked)}"

    @property
    def hashes(self) -> str:
        """The algorithms of the digests that were compared: ``sha256 and git-sha1``."""
        algorithms = set(self.checks) - {*CHECKS, ""}
        return " and ".join(sorted(algorithms, reverse=True))

    @property
    def weakly_checked(self) -> str:
        """How many files were compared with no digest: ``1 checked only by size``; nothing if there are none."""
        return self._shares(self.checks, CHECKS)

    @property
    def text(self) -> str:
        """How a model went: ``2,000 files  3.1 MB  sha256 ok  5 already here``."""
        came = self._shares(self.ways, _WAYS | SENT)
        parts = [counted(self.files, "file"), human_bytes(self.size), self.checked, came]
        return "  ".join(part for part in parts if part)

    def _shares(self, counts: Counter[str], words: dict[str, str]) -> str:
        """``3 cloned, 2 already here``; the word alone if it is true of all files."""
        shares = []
        for key, word in words.items():
            if counts[key] == self.files and self.files:
                shares.append(word)
            elif counts[key]:
                shares.append(f"{counts[key]:,} {word}")
        return ", ".join(shares)

    def sentence(self, seconds: float) -> str:
        """How all went: ``101 files, 400.1 MB in 31 s, 13 MB/s, verified by sha256 (1 checked only by size)``."""
        text = f"{counted(self.files, 'file')}, {human_bytes(self.size)}"
        if not self.fetched:
            ways = [words for way, words in WAYS.items() if self.ways[way]]
            text += f" {ways[0]}" if len(ways) == 1 else " from this disk"
        elif human_bytes(self.fetched) != human_bytes(self.size):
            text += f", {human_bytes(self.fetched)} of it fetched"
        text += f" in {human_elapsed(seconds)}"
        if self.fetched and seconds >= 0.05:
            text += f", {human_rate(self.fetched / seconds)}"
        if self.hashes:
            text += f", verified by {self.hashes}{in_brackets(self.weakly_checked)}"
        elif self.weakly_checked:
            text += f", {self.weakly_checked}"
        return text

    @property
    def is_of_a_download(self) -> bool:
        """All files came as those of a download do."""
        return set(self.ways) <= _DOWNLOADED


def in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
