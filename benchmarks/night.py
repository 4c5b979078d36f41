"""A night of prefetch in fast motion: three models, a window that opens and closes, a rate, a power cut, a second cron.

The window is 22:00-06:00 all along; what moves is this run's local clock, by TZ. After every step: the exit
code, what was said, what was served, and the metrics. The claims: every exit code is the one it must be, nothing
is said while all is well, the right bytes at the end, at most 1.10 times of them served in all. The log comes last.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import harness as bench
from nginx import Nginx
from support.polling import until

_MODELS = ("bert-fa", "voice-fa", "whisper-fa")
_SHARES = (6, 3, 1)
_RATE = 20 * 10**6
_LEFT = 4
"""Seconds of the night that are left to the run over which the window closes."""
_BEFORE, _OPEN, _CLOSING = 21 * 3600, 22 * 3600, 6 * 3600 - _LEFT
_PATIENCE = 60.0
_TOLD = ("exit_code", "fetched_bytes", "kept_bytes", 'models{status="present"}', 'models{status="missing"}')


def clock_at(second: int) -> str:
    """A TZ in which it is now that second of the day."""
    now = time.gmtime()
    east = (second - (now.tm_hour * 3600 + now.tm_min * 60 + now.tm_sec)) % 86400
    return f"NGT-{east // 3600}:{east // 60 % 60:02}:{east % 60:02}"


@dataclass
class Night:
    """The machine on which the night passes."""

    place: Path
    server: Nginx
    samples: list[bench.Sample]
    env: dict[str, str]

    @property
    def metrics(self) -> Path:
        return self.place / "mdl.prom"

    @property
    def state(self) -> Path:
        return self.place / "state" / "mdl"

    @property
    def size(self) -> int:
        return sum(one.size for one in self.samples)

    def start(self, second: int, *more: str) -> subprocess.Popen[str]:
        """Begin a prefetch at that second of the local day."""
        words = ("prefetch", "nightly", "--window", "22:00-06:00", "--limit-rate", str(_RATE))
        command = bench.mdl(*words, "--metrics", str(self.metrics), *more)
        env = {**self.env, "TZ": clock_at(second)}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=env, cwd=self.place, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def end(self, process: subprocess.Popen[str], must: int, *, silent: bool = True) -> str:
        """Wait for it, and hold its exit code and its words against what they must be."""
        said = "".join(process.communicate(timeout=_PATIENCE))
        bench.claim(f"exit code {process.returncode}, must be {must}", process.returncode == must)
        if silent:
            bench.claim(f"silent{': ' + said if said else ''}", not said)
        else:
            print(said.rstrip())
        return said

    def tell(self) -> str:
        """Print the metrics, and what was served so far; returns the latter, in MB."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        facts = [line.removeprefix("mdl_prefetch_") for line in lines if not line.startswith("#")]
        shown = [fact for fact in facts if fact.startswith(_TOLD) or fact.startswith("model_present")]
        print(f"  metrics: {'; '.join(shown) or 'none yet'}")
        sent = f"{self.server.sent() / 1e6:.1f}"
        print(f"  served so far: {sent} of {self.size / 1e6:.1f} MB")
        return sent

    def landed(self) -> int:
        """What is in the partials and under the final names."""
        found = bench.growing(self.place / "models")
        return sum(facts.st_blocks * 512 for name, facts in found if name == "data" or name.endswith(".bin"))

    def mdl(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            bench.mdl(*words), env=self.env, cwd=self.place, capture_output=True, text=True, timeout=_PATIENCE
        )
        return done.returncode, done.stdout


def before_the_window(night: Night) -> None:
    """21:00, too early."""
    night.end(night.start(_BEFORE), 75)
    bench.claim("nothing was served", night.server.sent() == 0)


def the_window_closes(night: Night) -> None:
    """05:59:56, the window closes while it runs."""
    began = time.monotonic()
    night.end(night.start(_CLOSING), 75)
    took = time.monotonic() - began
    bench.claim(f"it ended after {took:.1f} s, {_LEFT} were left", _LEFT - 1 <= took <= _LEFT + 3)
    bench.claim(f"{night.landed() / 1e6:.1f} MB came, at most the rate allows", 0 < night.landed() <= _LEFT * _RATE)


def its_time_is_over(night: Night) -> None:
    """22:00, with --max-duration 2s."""
    had = night.landed()
    night.end(night.start(_OPEN, "--max-duration", "2s"), 75)
    got = night.landed() - had
    bench.claim(f"{got / 1e6:.1f} MB came, at most the rate allows", 0 < got <= 2.2 * _RATE)


def the_power_fails(night: Night) -> None:
    """22:00, SIGKILL on the way."""
    had = night.landed()
    process = night.start(_OPEN)
    until(lambda: night.landed() > had + night.size // 8 or process.poll() is not None)
    process.kill()
    process.communicate()
    bench.claim(f"killed: {process.returncode}", process.returncode == -9)
    told = json.loads(night.mdl("jobs", "list", "--status", "dead", "--json")[1])
    bench.claim(f"jobs: {len(told['jobs'])} dead, must be 1", len(told["jobs"]) == 1)


def two_at_once(night: Night) -> None:
    """22:00, it goes on, while cron starts it again twice."""
    had = night.landed()
    first = night.start(_OPEN)
    until(lambda: night.landed() > had or first.poll() is not None)
    before = night.metrics.read_text()
    second, third = night.start(_OPEN), night.start(_OPEN, "--skip-if-running")
    night.end(second, 9, silent=False)
    night.end(third, 0)
    after = night.metrics.read_text()
    bench.claim("the first one still runs, and the metrics are as they were", first.poll() is None and after == before)
    night.end(first, 0)


def all_is_here(night: Night) -> None:
    """The next evening, there is nothing to do."""
    before = night.server.sent()
    night.end(night.start(_OPEN), 0)
    bench.claim("nothing was served", night.server.sent() == before)


def in_the_morning(night: Night) -> None:
    """What the machine has now."""
    code, told = night.mdl("verify", *_MODELS)
    print(told.rstrip())
    bench.claim(f"mdl verify ends with {code}, must be 0", code == 0)
    models = night.place / "models"
    right = [
        bench.sha256_of(models / name / one.path.name) == one.sha256
        for name, one in zip(_MODELS, night.samples, strict=True)
    ]
    bench.claim(f"{sum(right)} of {len(right)} files have the right sha256", all(right))
    left = [path.name for path in (models / ".mdl" / "partials").iterdir()]
    bench.claim(f"partials left: {len(left)}", not left)
    ratio = night.server.sent() / night.size
    bench.claim(f"served / size {ratio:.3f}, at most 1.10", ratio <= 1.10)


def main() -> int:
    args = bench.flags(__doc__, size="180M").parse_args()
    began = time.monotonic()
    with bench.folder(args.dir) as place, Nginx(place, buffer="64k") as server:
        sizes = [args.size * share // sum(_SHARES) for share in _SHARES]
        samples = [bench.random_file(place / f"{name}.bin", size) for name, size in zip(_MODELS, sizes, strict=True)]
        env = {
            **bench.environment(place / "home"),
            "XDG_STATE_HOME": str(place / "state"),
            "MDL_HOME": str(place / "models"),
        }
        models = dict(zip(_MODELS, samples, strict=True))
        book = bench.catalog(place / "catalog.toml", lambda one: server.url(one.path.name), models)
        night = Night(place, server, samples, {**env, "MDL_CATALOG": str(book)})
        steps = (before_the_window, the_window_closes, its_time_is_over, the_power_fails)
        rows = []
        for step in (*steps, two_at_once, all_is_here, in_the_morning):
            print(f"\n{step.__doc__}")
            step(night)
            rows.append((str(step.__doc__), night.tell()))
        print("\nThe log, without its lines of progress:")
        lines = (night.state / "downloads.log").read_text().splitlines()
        print("\n".join(line for line in lines if " INFO progress " not in line))
    what = f"Three models of {args.size / 1e6:.0f} MB together, {time.monotonic() - began:.0f} s"
    bench.table(("step", "served so far, MB"), rows, what)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
