"""The schedule in invented time: whatever servers answer, the requests and the seconds for a file are bounded."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.long import LONG, examples
from support.partials import KnownBytes

from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.download import Download
from mdl.downloader.plan import Item, Reason, Wanted
from mdl.downloader.schedule import Schedule, Work
from mdl.downloader.segment import Segment
from mdl.errors import AuthError, DigestMismatch, MdlError, NetworkError, ProtocolError
from mdl.files import LocalFile, RemoteFile
from mdl.hashing import Digest
from mdl.net.pacer import OriginRecord, Pacer
from mdl.net.policy import (
    PROGRESS,
    RequestEnded,
    RetryPolicy,
    State,
    Verified,
    VersionChanged,
)
from mdl.net.ranges import ByteRange, RangeSet
from mdl.paths import RelPath

POLICY = RetryPolicy()
TUNING = Tuning(small=0, least_segment=256 * 1024)
LONGEST_REQUEST = 60.0
"""Seconds; longer silence is a stall."""


@dataclass
class Clock:
    """Time that passes when the world says so."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass(frozen=True)
class Reply:
    """How a request is answered: with ``share`` of what it asked for, in at least ``least`` bytes, then ``error``."""

    share: float = 0.0
    least: int = 0
    error: Callable[[], MdlError] | None = None
    seconds: float = 0.01
    by_link: bool = False
    changed: bool = False


class World:
    """The real `Schedule` in invented time, without threads, sockets and disk. ``replies`` are given in turn."""

    patience = 200_000

    def __init__(self, replies: Iterable[Reply], right: Iterable[bool] = (True,)) -> None:
        self.clock, self._number, self._right = Clock(), itertools.count(), itertools.cycle(right)
        turns = itertools.cycle(replies)
        self.reply_to: Callable[[str], Reply] = lambda url: next(turns)
        self.requests: list[tuple[float, str]] = []
        self.responses: Counter[int] = Counter()
        self.running: list[tuple[float, int, Work, Reply]] = []

    def run(
        self,
        sizes: list[int],
        *,
        connections: int,
        mirrors: int = 0,
        hosts: int = 1,
        policy: RetryPolicy = POLICY,
        has_answered: bool = True,
    ) -> list[Download]:
        """Fetch one file of each size; file n is on host n modulo ``hosts``. Hosts have ``has_answered`` before."""
        files = [_download(n, size, connections, mirrors, n % hosts) for n, size in enumerate(sizes)]
        pacer = Pacer(connections, policy)
        pacer.records.default_factory = partial(OriginRecord, has_answered, serves_parallel=True)
        self.schedule = Schedule(files, connections, policy, pacer, lambda event: None, lambda: 0.5)
        while not all(one.ended for one in files):
            work = self.schedule.next(self.clock.now)
            if work:
                self._begin(work)
            elif self.running:
                self._end(*heapq.heappop(self.running))
            else:
                self.clock.now += 0.25
            assert len(self.requests) < self.patience, "it asks without end"
        return files

    def _begin(self, work: Work) -> None:
        one = work.download
        if work.segment is not None:
            reply = self.reply_to(one.url)
            work.segment.asked_range = work.segment.asked
            self.requests.append((self.clock.now, one.url))
            heapq.heappush(self.running, (self.clock.now + reply.seconds, next(self._number), work, reply))
        elif work.kind == "close":
            self.schedule.end(one)
        elif work.kind == "finish":
            error = None if next(self._right) else DigestMismatch("wrong bytes")
            self.schedule.decide(one, Verified(error, self.responses[one.index] > 1, one.fetched), self.clock.now)
            (self.schedule.ready if error else self.schedule.end)(one)
        else:
            one.begin_anew()
            one.opened(KnownBytes())
            self.schedule.ready(one)

    def _end(self, moment: float, _number: int, work: Work, reply: Reply) -> None:
        self.clock.now = max(self.clock.now, moment)
        one, segment = work.download, work.segment
        assert segment is not None
        count = min(segment.left, max(reply.least, int(segment.left * reply.share)))
        if segment.is_whole and count and one.held:
            one.held = KnownBytes()
            one.pending = RangeSet()
        if not (one.rewind_why or one.error) and count:
            one.held.have.add(segment.at, segment.at + count)  # type: ignore[union-attr]
            segment.at += count
            segment.received += count
            self.responses[one.index] += 1
            one.first_response_seen = True
        segment.asked_url = "https://elsewhere/x" if reply.by_link else one.url
        if reply.changed:
            self.schedule.decide(one, VersionChanged(ProtocolError("changed")), self.clock.now)
        self.schedule.request_ended(one, segment, self.clock.now, reply.error() if reply.error else None)


def _download(number: int, size: int, connections: int, mirrors: int, host: int, tuning: Tuning = TUNING) -> Download:
    url, *others = (
        f"https://{name}.example/{number}" for name in (f"host{host}", *map("mirror{}".format, range(mirrors)))
    )
    remote = RemoteFile(
        RelPath.parse(f"{number}.bin"), url, size=size, digest=Digest("sha256", "ab" * 32), mirrors=tuple(others)
    )
    item = Item(Wanted("m", remote, LocalFile("absent")), Reason.MISSING)
    one = Download(item, number + 1, connections, tuning=tuning)
    one.scaler.width = connections
    return one


@pytest.fixture
def world() -> Callable[..., World]:
    """Makes worlds of the given replies."""
    return lambda *replies: World(replies)


NETWORK, PROTOCOL, REFUSED = partial(NetworkError, "reset"), partial(ProtocolError, "a lie"), partial(AuthError, "old")


def _replies(shares: list[float], leasts: list[int], changes: list[bool]) -> st.SearchStrategy[Reply]:
    return st.builds(
        Reply,
        share=st.sampled_from(shares),
        least=st.sampled_from(leasts),
        error=st.sampled_from([None, None, NETWORK, PROTOCOL, REFUSED]),
        seconds=st.floats(0.0, LONGEST_REQUEST),
        by_link=st.booleans(),
        changed=st.sampled_from(changes),
    )


FRUITLESS = _replies([0.0], [0, 0, 1, 17, PROGRESS - 1], [False])
ANY = _replies([0.0, 0.0, 0.1, 0.5, 1.0], [0, 1, PROGRESS - 1, PROGRESS, 3 * PROGRESS], [False] * 9 + [True])


def most_tries(policy: RetryPolicy = POLICY) -> int:
    """Failures in a row for which there is time, if every wait is as short as it may be."""
    moment, failure = 0.0, 1
    while moment < policy.patience:
        moment, failure = moment + policy.delay(failure, 0.0), failure + 1
    return failure


BUDGET = most_tries() + POLICY.protocol_errors + 1 + POLICY.refused_links + 1
"""Failures that one server may have between two steps of progress."""
calm = settings(deadline=None, max_examples=examples(80))


def most_steps(size: int, mirrors: int) -> int:
    """How often patience is restored: with each 64 KiB of a file; and a file is downloaded again once for a change,
    once for wrong bytes, once plainly and once for each mirror."""
    return (mirrors + 4) * (size // PROGRESS + 2)


def most_requests(size: int, connections: int, mirrors: int) -> int:
    """The bound: each budget can be spent once in each step, by failures that overlap."""
    return most_steps(size, mirrors) * (BUDGET + 1) * connections


def most_seconds(size: int, mirrors: int, policy: RetryPolicy = POLICY) -> float:
    """The bound: in each step nothing moves for as long as the patience lasts, beside the last request and the waits
    for what is no trouble of the network."""
    others = policy.protocol_errors + policy.refused_links + 4
    return most_steps(size, mirrors) * (policy.patience + (others + 1) * (LONGEST_REQUEST + policy.longest))


@pytest.mark.fault(221)
@calm
@given(
    st.lists(ANY, min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=4),
    st.integers(1, 64),
    st.integers(0, 3),
    st.integers(1, 5 * 2**20),
)
def test_requests_and_seconds_are_bounded(
    replies: list[Reply], right: list[bool], connections: int, mirrors: int, size: int
) -> None:
    """For any answers, of any number of connections and mirrors, a file ends within a bound of requests and seconds."""
    world = World(replies, right)
    began = world.clock.now
    world.run([size], connections=connections, mirrors=mirrors)
    assert len(world.requests) <= most_requests(size, connections, mirrors)
    assert world.clock.now - began <= most_seconds(size, mirrors)


@pytest.mark.fault(221)
@calm
@given(st.lists(FRUITLESS, min_size=1, max_size=12), st.integers(1, 64), st.integers(0, 3), st.integers(2**16, 2**26))
def test_fruitless_answers_cost_the_budget(replies: list[Reply], connections: int, mirrors: int, size: int) -> None:
    """Servers that never send 64 KiB at once cost the budget once for each 64 KiB that they send in all."""
    world = World(replies)
    files = world.run([size], connections=connections, mirrors=mirrors)
    steps = files[0].fetched // PROGRESS + 1
    assert len(world.requests) <= steps * BUDGET * (mirrors + 1) * connections
    assert world.clock.now - 1000.0 <= most_seconds(files[0].fetched, mirrors)


@pytest.mark.fault(221)
def test_without_the_rule_it_never_ends(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: if every answer counted as progress, a server of one byte an answer would be asked for ever."""
    monkeypatch.setattr(RequestEnded, "made_progress", True)
    here = world(ONE_BYTE)
    here.patience = 2000
    with pytest.raises(AssertionError, match="without end"):
        here.run([100 * MIB], connections=1)


FIVE = RetryPolicy(5)
ONE_BYTE, EMPTY = Reply(least=1), Reply()
GOOD, RESET = Reply(share=1.0), Reply(error=NETWORK)
MIB = 2**20


@pytest.mark.fault(221)
@pytest.mark.parametrize(
    ("replies", "most"),
    [
        ([EMPTY], 5),
        ([ONE_BYTE], 5),
        ([RESET], 5),
        ([Reply(least=1, error=NETWORK)], 5),
        ([Reply(least=1, error=PROTOCOL)], 4),
        ([Reply(least=1), Reply(error=REFUSED, by_link=True)], 8),
        ([Reply(least=1, error=NETWORK), Reply(least=1, error=PROTOCOL)], 8),
    ],
    ids=["empty", "one byte", "reset", "byte and cut", "byte and lie", "byte then 403", "cut then lie"],
)
def test_answers_without_progress(world: Callable[..., World], replies: list[Reply], most: int) -> None:
    """Answers without progress end a file after the few that the budget allows, whatever they are."""
    here = world(*replies)
    (one,) = here.run([100 * MIB], connections=1, policy=FIVE)
    assert one.error is not None
    assert len(here.requests) <= most


def test_good_mirror_is_asked(world: Callable[..., World]) -> None:
    """A host that sends one byte an answer is given up for the mirror, which sends the rest."""
    here = world(*[ONE_BYTE] * 5, *[GOOD] * 100)
    (one,) = here.run([MIB], connections=1, mirrors=1, policy=FIVE)
    assert (one.error, one.url) == (None, "https://mirror0.example/0")


@pytest.mark.fault(222)
@pytest.mark.parametrize("trouble", [NETWORK, PROTOCOL, REFUSED], ids=["reset", "lie", "expired link"])
@pytest.mark.parametrize("connections", [1, 2, 3, 8, 64])
def test_overlapping_failures_count_once(
    world: Callable[..., World], connections: int, trouble: Callable[[], MdlError]
) -> None:
    """A short outage or an expired link is one failure, however many connections meet it at once."""
    bad = Reply(least=PROGRESS // 2, error=trouble, by_link=trouble is REFUSED, seconds=1.0)
    here = world()
    here.reply_to = lambda url: bad if here.clock.now < 1000.5 else GOOD
    (one,) = here.run([64 * MIB], connections=connections, policy=RetryPolicy(3))
    assert one.error is None


@pytest.mark.fault(223)
def test_busy_host_holds_up_no_other(world: Callable[..., World]) -> None:
    """A host that asks to wait ten minutes holds up no file of another host."""
    here = world()
    wish = Reply(error=partial(NetworkError, "busy", retry_after=599.0))
    here.reply_to = lambda url: wish if "host0" in url else GOOD
    files = here.run([MIB] * 24, connections=4, hosts=2)
    good = [moment for moment, url in here.requests if "host1" in url]
    assert len(good) >= 12
    assert max(good) - 1000.0 < 1.0
    assert [one.error is None for one in files] == [False, True] * 12


@pytest.mark.fault(223)
def test_files_of_a_dead_host_fail_together(world: Callable[..., World]) -> None:
    """Two thousand files of a dead host take as long as one: only the host's budget is spent."""
    here = world(RESET)
    files = here.run([MIB] * 2000, connections=8, has_answered=False)
    assert all(one.error for one in files)
    assert len(here.requests) < 100
    assert here.clock.now - 1000.0 < 60


def test_broken_file_fails_alone(world: Callable[..., World]) -> None:
    """A file that its host cannot serve fails alone; all others of that host are fetched."""
    here = world()
    here.reply_to = lambda url: RESET if url.endswith("/0") else GOOD
    files = here.run([MIB] * 20, connections=1, policy=FIVE)
    assert [one.error is None for one in files] == [False] + [True] * 19


@pytest.mark.no_cover
@pytest.mark.parametrize("until", [0.05, 1.0])
def test_a_short_burst_costs_little(world: Callable[..., World], until: float) -> None:
    """A host that refuses everything for a moment in the middle costs that moment, a pause and little more."""
    here, lengths = world(), itertools.cycle([0.045, 0.05, 0.055, 0.048, 0.052])
    busy = Reply(error=partial(NetworkError, "429"), seconds=0.002)
    count = 1000 if LONG else 400
    here.reply_to = lambda url: (
        busy if 1000.6 <= here.clock.now < 1000.6 + until else Reply(share=1.0, seconds=next(lengths))
    )
    files = here.run([10_000] * count, connections=16)
    assert not any(one.error for one in files)
    assert here.clock.now - 1000.0 < count * 0.05 / 16 + until + 2


@pytest.mark.no_cover
@pytest.mark.parametrize("bad", [1, 24])
@pytest.mark.parametrize("status", ["503", "429"])
def test_broken_files_take_no_connections(world: Callable[..., World], bad: int, status: str) -> None:
    """Files that their host always refuses hold up no other: these take 1.3 seconds on 16 connections. Their own tries
    take up to 7.5 seconds, from the moment that a connection is free for them."""
    here, lengths = world(), itertools.cycle([0.045, 0.05, 0.055, 0.048, 0.052])
    count = 400
    broken = {f"/{n}" for n in range(0, count, count // bad)[:bad]}
    ended: list[float] = []

    def reply_to(url: str) -> Reply:
        if url[url.rindex("/") :] in broken:
            return Reply(error=partial(NetworkError, status), seconds=0.002)
        ended.append(here.clock.now)
        return Reply(share=1.0, seconds=next(lengths))

    here.reply_to = reply_to
    files = here.run([10_000] * count, connections=16, policy=FIVE)
    assert sum(one.error is not None for one in files) == bad
    assert max(ended) - 1000.0 < 2 * count * 0.05 / 16
    assert len(here.requests) <= count - bad + bad * (5 + 1)
    assert here.clock.now - 1000.0 < 30


@pytest.mark.no_cover
@pytest.mark.parametrize("cap", [1, 4, 12])
@pytest.mark.parametrize("asked", [None, 1.0])
def test_a_host_of_few_connections_fails_no_file(world: Callable[..., World], cap: int, asked: float | None) -> None:
    """A host that takes ``cap`` requests at once, and refuses the others, serves every file in little more time than
    it needs, and refuses few."""
    here = world()
    refusals = 0

    def reply_to(url: str) -> Reply:
        nonlocal refusals
        serving = sum(reply.error is None for _, _, _, reply in here.running)
        if serving < cap:
            return Reply(share=1.0, seconds=0.05 + 0.001 * (serving % 7))
        refusals += 1
        return Reply(error=partial(NetworkError, "503", retry_after=asked), seconds=0.002)

    here.reply_to = reply_to
    files = here.run([10_000] * 400, connections=16)
    assert not any(one.error for one in files)
    assert refusals < 60
    assert here.clock.now - 1000.0 < 3 * 400 * 0.05 / cap + 5


def test_a_file_waits_as_its_host_asks(world: Callable[..., World]) -> None:
    """A file that is refused once while others are served is asked for again when its host said, not before; the
    others go on meanwhile."""
    here, asked = world(), list[float]()

    def reply_to(url: str) -> Reply:
        if url.endswith("/8"):
            asked.append(here.clock.now)
            if len(asked) == 1:
                return Reply(error=partial(NetworkError, "busy", retry_after=9.0), seconds=0.002)
        return Reply(share=1.0, seconds=0.05)

    here.reply_to = reply_to
    files = here.run([10_000] * 100, connections=4)
    assert not any(one.error for one in files)
    assert (len(asked), round(asked[1] - asked[0])) == (2, 9)
    assert sorted(moment for moment, _ in here.requests)[-2] - 1000.0 < 3


@pytest.mark.fault(223)
@pytest.mark.parametrize("files", [1, 8, 200])
def test_short_outage(world: Callable[..., World], files: int) -> None:
    """mdl waits for a host that restarts as long with many files as with one."""
    here = world()
    here.reply_to = lambda url: RESET if here.clock.now < 1003.0 else GOOD
    assert not any(one.error for one in here.run([MIB] * files, connections=8))


@pytest.mark.fault(224)
def test_two_failing_files_end(world: Callable[..., World]) -> None:
    """A request is surplus only if the origin serves the others: two files that both always fail come to an end."""
    here = world()
    here.reply_to = lambda url: Reply(error=NETWORK, seconds=30.0 if url.endswith("/0") else 41.0)
    files = here.run([MIB, MIB], connections=2, policy=FIVE)
    assert all(one.error for one in files)
    assert len(here.requests) <= 2 * 5 + 2


@pytest.mark.fault(222)
def test_late_failure_is_not_the_mirrors(world: Callable[..., World]) -> None:
    """Late failures of a server that was given up cost the mirror nothing."""
    here = world()
    final = Reply(error=partial(NetworkError, "for good", final=True), seconds=1.0)
    here.reply_to = lambda url: GOOD if "mirror" in url else final
    (one,) = here.run([64 * MIB], connections=8, mirrors=1)
    assert (one.error, one.url) == (None, "https://mirror0.example/0")


def away(here: World, start: float, seconds: float, error: Callable[[], MdlError]) -> Callable[[str], Reply]:
    """Every host fails in that time, after the run has begun, and serves 256 KiB an answer before and after."""
    good = Reply(share=0.25, least=256 * 1024, seconds=0.5)
    return lambda url: Reply(error=error) if start <= here.clock.now - 1000.0 < start + seconds else good


@pytest.mark.fault(57, 223)
@pytest.mark.parametrize("files", [1, 8])
@pytest.mark.parametrize("seconds", [5.0, 120.0, 280.0])
@pytest.mark.parametrize("status", [False, True], ids=["no connection", "503"])
def test_an_outage_is_waited_for(world: Callable[..., World], seconds: float, files: int, status: bool) -> None:
    """A network or server that is away for minutes ends no file; half a minute after it is back, bytes come again. How
    often it is asked meanwhile does not grow with the number of files, and no byte comes twice."""
    here = world()
    error = partial(NetworkError, "503", is_answer=True) if status else NETWORK
    here.reply_to = away(here, 1.0, seconds, error)
    downloads = here.run([4 * MIB] * files, connections=4)
    assert not any(one.error for one in downloads)
    back = next(moment for moment, _ in here.requests if moment - 1000.0 >= 1.0 + seconds)
    assert back - 1000.0 <= 1.0 + seconds + 30.0
    asked = [moment for moment, _ in here.requests if 1.0 <= moment - 1000.0 < 1.0 + seconds]
    assert len(asked) <= (4 + seconds / 15 + 12) * files
    assert sum(one.fetched for one in downloads) == 4 * MIB * files


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    ("policy", "has_answered", "least", "most"),
    [
        (POLICY, True, 300, 340),
        (POLICY, False, 15, 20),
        (RetryPolicy(patience=20.0), True, 20, 25),
        (RetryPolicy(patience=5.0), False, 5, 8),
        (RetryPolicy(patience=3600.0, unanswered=3600.0), False, 3600, 3640),
        (RetryPolicy(5), True, 0, 16),  # twice the longest four waits: its own, and those of its origin
    ],
    ids=["answered", "never answered", "given", "given, never answered", "unattended", "a ceiling of tries"],
)
@pytest.mark.parametrize("files", [1, 5])
def test_patience_is_time(
    world: Callable[..., World], policy: RetryPolicy, has_answered: bool, least: float, most: float, files: int
) -> None:
    """A host that is away for good is given up when the patience is over: sooner if it never answered in this run, and
    for several files at once."""
    here = world(RESET)
    downloads = here.run([MIB] * files, connections=4, policy=policy, has_answered=has_answered)
    assert all(one.error for one in downloads)
    assert least <= here.clock.now - 1000.0 <= most


@pytest.mark.fault(57)
def test_progress_restores_patience(world: Callable[..., World]) -> None:
    """A server that brings 256 KiB and is away for four minutes, again and again, is never given up."""
    here, moved = world(), [1000.0]

    def reply_to(url: str) -> Reply:
        if here.clock.now - moved[-1] < 240:
            return RESET
        moved.append(here.clock.now)
        return Reply(least=256 * 1024)

    here.reply_to = reply_to
    (one,) = here.run([2 * MIB], connections=1)
    assert one.error is None
    assert len(moved) == 9


@pytest.mark.fault(58)
def test_a_wish_to_wait_is_kept(world: Callable[..., World]) -> None:
    """A server that asks to wait five minutes is asked again then, though the patience is over by that time."""
    here = world(Reply(error=partial(NetworkError, "busy", retry_after=300.0, is_answer=True)), GOOD)
    (one,) = here.run([MIB], connections=1)
    assert one.error is None
    assert 300.0 <= here.requests[1][0] - 1000.0 < 301.0


# One step of the schedule, by itself.

NOW = 1000.0


def schedule_of(files: Sequence[Download], pacer: Pacer | None = None) -> Schedule:
    """Four connections, whose origins serve several at once."""
    pacer = pacer or Pacer(4, POLICY)
    pacer.records.default_factory = partial(OriginRecord, True, serves_parallel=True)
    return Schedule(files, 4, POLICY, pacer, lambda event: None, lambda: 0.5)


def some_files(count: int, tuning: Tuning = TUNING) -> list[Download]:
    """Files of 1 MiB of one host, which use up to four connections each."""
    return [_download(number, MIB, 4, 0, 0, tuning) for number in range(count)]


def begin(schedule: Schedule) -> Download:
    """Begin the next file."""
    work = schedule.next(NOW)
    assert work is not None
    assert work.kind == "begin"
    work.download.opened(KnownBytes())
    work.download.first_response_seen = True
    schedule.ready(work.download)
    return work.download


def fetch(schedule: Schedule) -> tuple[Download, Segment]:
    """Ask for the next segment."""
    work = schedule.next(NOW)
    assert work is not None
    assert work.segment is not None
    work.segment.asked_range = work.segment.asked
    return work.download, work.segment


def test_it_is_over_when_every_file_has_ended() -> None:
    """A file that waits, and one that was begun, have not ended."""
    schedule = schedule_of(some_files(1))
    assert not schedule.is_over
    file = begin(schedule)
    assert not schedule.is_over
    schedule.end(file)
    assert schedule.is_over


def test_every_file_is_counted_wherever_it_is() -> None:
    """While files wait, are fetched, wait to be published and have ended, all together have the same size; a file whose
    publishing fails is closed."""
    files = some_files(3, Tuning(small=MIB))
    total = sum(file.size for file in files)
    schedule = schedule_of(files)
    for step in range(3):
        assert schedule.progress().size == total
        file, segment = fetch(schedule)
        assert schedule.progress().size == total
        schedule.fetched(file, segment, NOW)
        assert (schedule.progress().size, file in schedule.active, schedule.is_over) == (total, False, False)
        if step:
            schedule.end(file)
        else:
            schedule.abandon(Work("fetch", file, segment), NetworkError("the disk is gone"))
            work = schedule.next(NOW)
            assert work is not None
            assert (work.kind, work.download) == ("close", file)
            schedule.end(work.download)
    assert (schedule.progress().size, schedule.is_over) == (total, True)


def test_the_next_look_is_when_a_file_may_go_on() -> None:
    """Not later than the first wait ends, and a quarter of a second at most."""
    schedule = schedule_of(some_files(1))
    file = begin(schedule)
    for left, seconds in ((0.1, 0.1), (0.0, 0.25), (9.0, 0.25), (0.001, 0.005)):
        file.attempted(State(retry_at=NOW + left))
        assert schedule.seconds_to_next_look(NOW) == pytest.approx(seconds)


def test_a_file_in_doubt_goes_after_the_others() -> None:
    """While its origin has failed and served nothing since, a file that has failed lets a waiting one try first."""
    pacer = Pacer(4, POLICY)
    schedule = schedule_of(some_files(2), pacer)
    failed = begin(schedule)
    failed.attempted(State(network_errors=1))
    pacer.failed(failed.origin, failed.url, NOW - 100, NOW - 99, 1.0, NetworkError("reset"))
    work = schedule.next(NOW)
    assert work is not None
    assert (work.kind, work.download is failed) == ("begin", False)


@pytest.mark.parametrize(("small", "kind"), [(0, "begin"), (MIB, "fetch")])
def test_a_small_file_is_asked_for_at_once(small: int, kind: str) -> None:
    """It needs no partial, and comes in one answer."""
    work = schedule_of(some_files(1, Tuning(small=small))).next(NOW)
    assert work is not None
    assert (work.kind, work.segment is not None and work.segment.is_whole) == (kind, kind == "fetch")


def test_nothing_is_asked_of_a_host_that_is_down() -> None:
    """Its files fail at once, those that were begun and those that wait."""
    pacer = Pacer(4, RetryPolicy(1))
    schedule = schedule_of(some_files(3), pacer)
    file = begin(schedule)
    for number in range(2):
        error = NetworkError("refused")
        pacer.failed(file.origin, f"https://host0.example/{number}", NOW + number, NOW + number, 1.0, error)
    kinds = []
    while not schedule.is_over:
        work = schedule.next(NOW + 2.0)
        if work:
            kinds.append(work.kind)
            schedule.end(work.download)
    assert kinds == ["close"] * 3


def test_the_whole_file_is_taken_where_a_part_was_asked_for() -> None:
    """If nothing else of it is fetched; then it stays at one answer. Where no range was asked for it always is."""
    schedule = schedule_of(some_files(1))
    file = begin(schedule)
    fetch(schedule)
    assert schedule.accept_whole(file, is_range_ignored=False)
    assert not file.single_stream
    assert schedule.record(file).serves_ranges is None
    _, second = fetch(schedule)
    assert not schedule.accept_whole(file, is_range_ignored=True)
    schedule.request_ended(file, second, NOW)
    assert schedule.accept_whole(file, is_range_ignored=True)
    assert file.single_stream
    assert schedule.record(file).serves_ranges is False


def test_a_whole_file_after_a_refused_range_tells_of_the_origin() -> None:
    """The file that comes once it is asked for without a range says that its server has none."""
    schedule = schedule_of(some_files(1))
    file = begin(schedule)
    fetch(schedule)
    file.ask_without_range(is_for_good=True)
    assert schedule.accept_whole(file, is_range_ignored=False)
    assert schedule.record(file).serves_ranges is False


@pytest.mark.parametrize("size", [100 * MIB, 300 * MIB, 50 * 10**9])
def test_a_file_begins_with_one_plain_request(size: int) -> None:
    """Up to 50 GB all of it is asked for, without a range: over one connection there is no second request. A second
    connection takes the end of it, so that the front is whole soon enough to be hashed."""
    file = _download(0, size, 4, 0, 0, Tuning())
    file.opened(KnownBytes())
    record = OriginRecord()
    first = file.next_segment(record)
    assert first is not None
    assert (first.at, first.stop, first.asked) == (0, size, None)
    assert file.next_segment(record) is None
    file.running.add(first)
    file.first_response_seen = True
    first.begin_answer(NOW)
    second = file.next_segment(record)
    assert second is not None
    assert second.asked == ByteRange(min(size // 2, Tuning().most_segment), size)
    assert first.stop == second.at


@pytest.mark.parametrize("connections", [1, 2, 4])
@pytest.mark.parametrize("size", [50 * 10**9 + 1, 120 * 10**9, 10**12])
def test_no_request_asks_for_more_than_a_cdn_sends(size: int, connections: int) -> None:
    """A file of more than 50 GB begins with a range, and no connection asks for more in one request."""
    file = _download(0, size, connections, 0, 0, Tuning())
    file.opened(KnownBytes())
    record = OriginRecord()
    asked = []
    while (segment := file.next_segment(record)) is not None:
        assert segment.asked is not None
        asked.append(segment.asked)
        file.running.add(segment)
        file.first_response_seen = True
        segment.begin_answer(NOW)
        if connections == 1:
            file.running.discard(segment)
    assert asked[0] == ByteRange(0, 50 * 10**9)
    assert all(part.length <= 50 * 10**9 for part in asked)
    if connections == 1:
        assert sum(part.length for part in asked) == size
    else:
        assert len(asked) == 2


@pytest.mark.parametrize(("count", "is_free"), [(0, False), (PROGRESS, True)])
def test_a_refusal_beside_others_is_about_the_origin_if_these_are_served(count: int, is_free: bool) -> None:
    """One that began at the same time and has brought nothing yet says nothing."""
    schedule = schedule_of(some_files(1))
    file = begin(schedule)
    _, other = fetch(schedule)
    _, refused = fetch(schedule)
    other.at += count
    schedule.request_ended(file, refused, NOW + 1.0, AuthError("one too many"))
    assert not file.error
    assert file.attempts.is_plain is not is_free


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_refusal_is_final_only_of_a_plain_request(is_plain: bool) -> None:
    """A host that refuses a range, or the first of several requests, may still serve the whole file alone."""
    schedule = schedule_of(some_files(1))
    file = begin(schedule)
    if is_plain:
        file.attempted(State(is_plain=True))
        file.use_one_answer()
    _, segment = fetch(schedule)
    schedule.request_ended(file, segment, NOW + 1.0, AuthError("forbidden"))
    assert schedule.record(file).refusals_are_final is is_plain
