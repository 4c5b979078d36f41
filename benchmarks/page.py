"""The page, the chart and the README's lines, from what the benchmarks found. Nothing is measured here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from record import Comparison, Peer, Record, Table

_ROOT = Path(__file__).parents[1]
PAGE, CHART, README = _ROOT / "docs/benchmarks.md", _ROOT / "docs/pictures/benchmarks.svg", _ROOT / "README.md"
_README_BLOCK = re.compile(r"(?<=<!-- benchmarks -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
_AS_FAST = 0.95
"""At less than this mdl is called slower: what is between it and 1 is noise on the machines that this runs on."""


@dataclass(frozen=True)
class Part:
    """A section of the page: ``command`` is its benchmark, in benchmarks/."""

    title: str
    command: str
    text: str


PARTS: Mapping[str, Part] = {
    "large": Part(
        "One large file",
        "download.py --rounds 3",
        "From nginx on the loopback, over plain HTTP. A fifth of a second of mdl's time is its start. curl, wget and "
        "hf are gone before their bytes are on the disk, and do not look at them; `dd`, which copies the file without "
        "any network and then syncs it, shows what the disk takes by itself. Why mdl syncs all the same: [the "
        "decision](adr/0005-synced-before-seen.md).",
    ),
    "tls": Part(
        "One large file over TLS",
        "download.py --tls --rounds 3",
        "Everybody decrypts each byte; mdl hashes it too. SHA-256 alone costs half of what curl's whole transfer "
        "does, so mdl takes more CPU than curl, and less than curl and openssl together: [the "
        "decision](adr/0024-tls.md).",
    ),
    "small": Part(
        "Many small files",
        "small.py",
        "One repository of a hub: nginx with static files at the hub's URLs. mdl compares each file with its digest "
        "and syncs it before its name appears. On a loopback without any latency, aria2c and curl, which are C, spend "
        "less on each file than Python does: [the decision](adr/0026-small-files.md).",
    ),
    "small-far": Part(
        "Many small files, 20 ms away",
        "small.py --rtt 20 --files 1000",
        "The same over a link with a round trip of 20 ms, as between two countries. Here the number of requests on "
        "their way counts, which mdl finds by itself. wget has one connection.",
    ),
    "connections": Part(
        "Slow and far servers",
        "connections.py --rounds 3",
        "A server that gives each connection 10 MiB/s, and a link with a round trip of 40 ms and 64 MiB/s. mdl starts "
        "with few connections and adds more while the throughput grows: [the decision](adr/0025-connections.md).",
    ),
    "kill": Part(
        "Killed on the way",
        "kill.py --size 128M --seconds 5 --downloads 3 --kills 4",
        "SIGKILL at random moments, and the same command again, until it ends. curl and wget go on where the file on "
        "the disk ends; they compare nothing with a digest. aria2 saves its state once a minute, and hf deletes what "
        "it had.",
    ),
    "rate": Part(
        "A rate limit",
        "rate.py --compare --rate 20M",
        "What arrives at this machine in any ten seconds, of the rate that was asked for with `--limit-rate`.",
    ),
    "night": Part(
        "A night of prefetch",
        "night.py",
        "`mdl prefetch` with a window of hours and a rate, in fast motion: too early, cut short by the window, by "
        "`--max-duration` and by a SIGKILL, started twice at once, and at last complete.",
    ),
    "start": Part(
        "How soon mdl answers",
        "start.py --rounds 9",
        "Beside importing typer, on which the commands are built. No command imports an HTTP client or a hub library "
        "before it asks somebody.",
    ),
    "pack": Part(
        "Packing a trained run",
        "pack.py --rounds 3",
        "A run of 1 GiB: weights in bf16, a tokenizer, a log. mdl makes the sha256 of every file and syncs the "
        "archive; of the others only those that say so.",
    ),
    "unpack": Part(
        "Unpacking it",
        "unpack.py --rounds 3",
        "mdl compares each file with its sha256 in the manifest, and syncs it.",
    ),
    "many": Part(
        "Many small files packed, unpacked and verified",
        "many.py",
        "mdl also makes the sha256 of every file and syncs what it wrote. zip, unzip and sha256sum are C, and "
        "`sha256sum` of 2,000 files of 4 KiB ends before Python has begun. Where many files were deleted just before, "
        "ext4 makes new ones several times as slowly, so the files are unpacked in memory as well.",
    ),
    "growth": Part(
        "More files",
        "growth.py --gigabytes --models",
        "mdl alone. Time grows with the number of files. So does the memory: mdl holds what it knows of every file "
        "of a model until the end, and returns a row for each.",
    ),
    "sizes": Part(
        "Larger files",
        "growth.py --files --models",
        "mdl alone. Time grows with the size, and memory does not grow.",
    ),
    "catalogs": Part(
        "Larger catalogs",
        "growth.py --files --gigabytes",
        "mdl alone. Every model is one file of the same repository, so each command meets all of it for each of them.",
    ),
    "serve": Part(
        "mdl serve beside nginx",
        "serve.py --rounds 3",
        "The speed that curl gets from each server, and what it costs the server.",
    ),
    "remotes": Part(
        "Results of remote training, killed on the way",
        "remotes.py --size 64M --kills 4 --seconds 5",
        "From a bucket (a real SeaweedFS), and from a RunPod endpoint whose worker answers with a link that soon "
        "expires.",
    ),
    "sweep": Part(
        "Killed before every kind of call that changes the disk",
        "sweep.py --short",
        "Some 20 points, spread over the commands. Without `--short` it is every call of every command, several "
        "hundred.",
    ),
}

_HEAD = """\
# Benchmarks

mdl verifies every byte and syncs it to the disk before the file appears. Most other tools do neither, so mdl stands
here beside tools that verify and beside tools that do not.

`python benchmarks/all.py` runs all of this beside the programs that are on PATH, and writes this page: no figure on it
was written by hand. The programs take turns, in an order drawn anew for each round. A figure is the median of the
rounds; a ratio is the median of the ratios of each round. Absolute times mean little elsewhere: run it on your machine.
"""


def drawn(results: Mapping[str, Record]) -> dict[Path, str]:
    """Each file that is made of the results, with its text."""
    readme = _README_BLOCK.sub(lambda _: _readme(results), README.read_text())
    return {PAGE: _page(results), CHART: _chart(_comparisons(results)), README: readme}


def _comparisons(results: Mapping[str, Record]) -> list[Comparison]:
    return [one for name in PARTS if name in results for one in results[name]["comparisons"]]


# The page.


def _page(results: Mapping[str, Record]) -> str:
    found = {name: results[name] for name in PARTS if name in results}
    parts = [_HEAD, _summary(_comparisons(results)), _slower(found)]
    parts += [_section(PARTS[name], record) for name, record in found.items()]
    return "\n".join(parts)


def _summary(comparisons: Sequence[Comparison]) -> str:
    rows = [
        [one["work"], f"{one['seconds']:.2f}", "; ".join(_beside(peer) for peer in _by_speed(one["peers"]))]
        for one in comparisons
    ]
    return f"""\
## In one look

![mdl's time beside that of other programs, for each work below](pictures/{CHART.name})

Seconds, medians. In brackets: mdl's time, with the other program's time as 1. Smaller is better; above 1, mdl is
slower. **Bold** are those that hash or sync what they wrote, as mdl always does.

{_markdown({"head": ["work", "mdl", "beside it"], "rows": rows, "caption": ""})}"""


def _beside(peer: Peer) -> str:
    name = f"`{peer['name']}`"
    return f"{f'**{name}**' if peer['alike'] else name} {peer['seconds']:.2f} ({_digits(share(peer))})"


def share(peer: Peer) -> float:
    """mdl's time, with the other program's time as 1: below 1, mdl is quicker."""
    return 1 / peer["times"]


def _by_share(peers: Sequence[Peer]) -> list[Peer]:
    return sorted(peers, key=share)


def _by_speed(peers: Sequence[Peer]) -> list[Peer]:
    return sorted(peers, key=lambda peer: peer["times"])


def _slower(found: Mapping[str, Record]) -> str:
    """What mdl is behind in, and what is claimed in vain."""
    lines = []
    for record in found.values():
        for one in record["comparisons"]:
            behind = [peer for peer in _by_speed(one["peers"]) if peer["times"] < _AS_FAST]
            names = ", ".join(f"{_digits(share(peer))} times as long as `{peer['name']}`" for peer in behind)
            lines += [f"- {one['work']}: mdl takes {names}."] if names else []
    missed = [f"- {one['text']}." for record in found.values() for one in record["claims"] if not one["holds"]]
    text = ["## Where mdl is slower", "", *(lines or ["Nowhere in this run."]), ""]
    if missed:
        text += ["What the benchmarks claim, and this run did not show:", "", *missed, ""]
    return "\n".join(text)


def _section(part: Part, record: Record) -> str:
    text = [f"## {part.title}", "", part.text, ""]
    if record["skipped"]:
        return "\n".join([*text, f"Not run here: {record['skipped']}.", ""])
    for table in record["tables"]:
        text += [_markdown(table), f"{table['caption']}.", ""]
    held = sum(one["holds"] for one in record["claims"])
    claims = f" {held} of {len(record['claims'])} claims hold." if record["claims"] else ""
    text += [f"`{record['command']}`, {record['day']}.{claims}", f"{record['machine']}; {record['versions']}.", ""]
    return "\n".join(text)


def _markdown(table: Table) -> str:
    lines = [table["head"], ["---"] * len(table["head"]), *table["rows"]]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _digits(times: float) -> str:
    """Two digits that count."""
    return f"{times:.0f}" if times >= 10 else f"{times:.1f}" if times >= 2 else f"{times:.2f}"


# The README's three lines.


_IN_README = (
    (("One file of 1 GiB", "curl", "curl && sync", "aria2c -x16 --checksum", "hf download"),),
    (
        ("2,000 files of 8 KiB", "hf download", "aria2c -j16"),
        ("1,000 files of 8 KiB, 20 ms away", "hf download", "aria2c -j16"),
    ),
    (
        ("Packing a run in bf16, deflated", "zip -r -1"),
        ("Packing a run in bf16, stored", "zip -r -0"),
        ("Packing 20,000 files of 4 KiB", "zip -r -0"),
    ),
)
"""Each line's works, each with the peers that it names."""


def _readme(results: Mapping[str, Record]) -> str:
    shares = {(one["work"], peer["name"]): share(peer) for one in _comparisons(results) for peer in one["peers"]}

    def compared(work: str, *names: str) -> str:
        found = [f"{_digits(shares[work, name])} × `{name}`" for name in names if (work, name) in shares]
        return f"{work}: {', '.join(found) or 'not measured'}"

    picture = f"![mdl's time beside that of other programs]({CHART.relative_to(_ROOT)})"
    about = (
        "mdl always hashes and syncs what it writes; `curl`, `hf` and `zip` do neither. mdl's time, as a multiple of\n"
        "the other program's time (smaller is better):"
    )
    lines = ["- " + " ".join(f"{compared(*one)}." for one in line) for line in _IN_README]
    return "\n".join([picture, "", about, "", *lines])


# The chart.


_LEFT, _RIGHT, _WIDTH = 250, 24, 860
_LANE, _LETTER = 17, 6.4
_LEGEND = "Left of the green line mdl takes less time. Filled: it hashes or syncs what it wrote, as mdl always does."
_COLORS = {"line": "#2da44e", "text": "#59636e", "grid": "#8c959f"}
_STYLE = f"""\
text {{ font: 12px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; fill: {_COLORS["text"]} }}
.work, .title {{ font-weight: 600 }} .title {{ font-size: 15px }} .axis {{ text-anchor: middle }}
.grid {{ stroke: {_COLORS["grid"]}; stroke-opacity: .25 }} .one {{ stroke: {_COLORS["line"]}; stroke-width: 2 }}
circle {{ stroke: {_COLORS["line"]}; stroke-width: 2; fill: none }} .alike {{ fill: {_COLORS["line"]} }}"""


@dataclass
class _Row:
    """One work. ``lanes`` are the peers' dots with their names, as many lines as it takes for no two to overlap."""

    work: str
    lanes: list[list[tuple[float, Peer]]] = field(default_factory=list)

    def place(self, at: float, peer: Peer) -> None:
        """Into the first lane that is free there."""
        for lane in self.lanes:
            if at > _end(*lane[-1]) + 12:
                lane.append((at, peer))
                return
        self.lanes.append([(at, peer)])


def _end(at: float, peer: Peer) -> float:
    return at + 10 + _LETTER * len(_label(peer))


def _label(peer: Peer) -> str:
    return f"{peer['name']} {_digits(share(peer))}"


def _chart(comparisons: Sequence[Comparison]) -> str:
    """Dots on a logarithmic scale: mdl's time as a share of each peer's. Filled: it verifies or syncs too."""
    every = [share(peer) for one in comparisons for peer in one["peers"]]
    low, high = math.floor(math.log2(min(every, default=0.5))), math.ceil(math.log2(max(every, default=2)))
    room = _WIDTH - _LEFT - _RIGHT - 190  # the last names stand right of their dots

    def place(ratio: float) -> float:
        return _LEFT + room * (math.log2(ratio) - low) / (high - low)

    rows = []
    for one in comparisons:
        row = _Row(one["work"])
        for peer in _by_share(one["peers"]):
            row.place(place(share(peer)), peer)
        rows.append(row)
    height = 84 + sum(_LANE * len(row.lanes) + 10 for row in rows)
    body = "\n".join([*_grid(place, range(low, high + 1), height), *_dots(rows)])
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">
<title>mdl's time beside that of other programs</title>
<style>
{_STYLE}
</style>
<text x="12" y="24" class="title">mdl's time, with the other program's time as 1</text>
<text x="12" y="44">{_LEGEND}</text>
{body}
</svg>
"""


def _grid(place: Callable[[float], float], powers: range, height: float) -> Iterator[str]:
    for power in powers:
        x, name = place(2.0**power), str(2**power) if power >= 0 else f"1/{2**-power}"
        kind = "grid" if power else "one"
        yield f'<line x1="{x:.0f}" y1="74" x2="{x:.0f}" y2="{height - 8:.0f}" class="{kind}"/>'
        yield f'<text x="{x:.0f}" y="68" class="axis">{name}</text>'


def _dots(rows: Sequence[_Row]) -> Iterator[str]:
    y = 82.0
    for row in rows:
        yield f'<text x="12" y="{y + 13:.0f}" class="work">{escape(row.work)}</text>'
        for lane in row.lanes:
            for x, peer in lane:
                kind = ' class="alike"' if peer["alike"] else ""
                yield f'<circle cx="{x:.1f}" cy="{y + 9:.0f}" r="4"{kind}/>'
                yield f'<text x="{x + 9:.1f}" y="{y + 13:.0f}">{escape(_label(peer))}</text>'
            y += _LANE
        y += 10
