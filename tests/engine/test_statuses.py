"""The engine against refusals, Retry-After and signed URLs that expire (faults, group C)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.polling import until

from mdl.events import Failed
from mdl.sources.hub_origin import HubOrigin

DATA, TINY = noise(4 * MIB), noise(50_000, 1)
SIZE = len(DATA)
TOKEN = "hf_not_for_others"


@pytest.mark.fault(56)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize(
    ("status", "code"), [(400, 5), (401, 4), (403, 4), (404, 3), (405, 5), (407, 4), (410, 3), (451, 5), (501, 5)]
)
def test_final_statuses(bench: Bench, status: int, code: int, data: bytes) -> None:
    """A refusal that will not pass is told at once, in the server's words, without a second try (C56)."""
    with FaultyServer(faults.answers(status, body=b"because of the weather\n")) as server:
        run = bench.run(pinned(server.url + "/f", data))
        tries = len(server.requests)
    assert (run.code, tries, run.retries) == (code, 1, 0)
    assert "because of the weather" in run.error["message"]


@pytest.mark.fault(56)
def test_one_end_for_several_connections(bench: Bench) -> None:
    """A file that all its connections find gone at once has failed once (C56)."""
    bench.segments(MIB)
    gone: list[Request] = []

    def handler(request: Request, number: int) -> Answer:
        if not faults.resumes(request):
            return faults.short_body(DATA, MIB - 1)(request, number)
        gone.append(request)
        until(lambda: len(gone) >= 2, seconds=0.5, must=False)
        return reply(404, b"gone")

    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=2)
    assert (run.code, len(gone)) == (3, 2)
    assert sum(isinstance(event, Failed) for event in run.events) == 1


@pytest.mark.fault(57)
@pytest.mark.parametrize("status", faults.RETRIED)
def test_passing_statuses(bench: Bench, status: int) -> None:
    """A refusal that may pass is tried again, and the file arrives (C57)."""
    with FaultyServer(faults.busy(faults.honest(DATA), times=2, status=status)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), retries=3)
    assert (run.code, run.retries) == (0, 2)


@pytest.mark.fault(57)
@pytest.mark.parametrize("status", faults.RETRIED)
def test_attempts_are_counted(bench: Bench, status: int) -> None:
    """A server that stays busy is given up after the attempts allowed: 5 (C57)."""
    with FaultyServer(faults.answers(status)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), retries=4)
        tries = len(server.requests)
    assert (run.code, tries) == (5, 4)


def in_a_minute() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("said", "wish"),
    [("3", (3, 3)), (in_a_minute, (1, 60)), ("Thu, 01 Jan 2015 00:00:00 GMT", (0, 0)), ("soon", None), ("-5", None)],
    ids=["seconds", "date", "past", "garbage", "negative"],
)
def test_retry_after(bench: Bench, said: object, wish: tuple[int, int] | None) -> None:
    """Retry-After is obeyed in seconds and as a date; nonsense in it is as none (C58)."""
    text = said() if callable(said) else said
    with FaultyServer(faults.busy(faults.honest(DATA), retry_after=str(text))) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    waited, *_ = bench.waits
    assert run.code == 0
    assert (waited is None) if wish is None else (waited is not None and wish[0] <= waited <= wish[1])


@pytest.mark.fault(58)
def test_retry_after_too_long(bench: Bench) -> None:
    """A server that asks to wait for years is given up at once, in its own words (C58)."""
    with FaultyServer(faults.busy(faults.honest(DATA), retry_after="1000000000")) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
        tries = len(server.requests)
    assert (run.code, tries, bench.waits) == (5, 1, [])
    assert "1000000000" in run.error["message"]


@pytest.mark.fault(59)
def test_signed_urls_expire(bench: Bench) -> None:
    """An expired signed URL is made anew and the file goes on at the same byte; no attempt is used up (C59)."""
    bench.segments(MIB)
    signed = faults.Signed(DATA, requests=1)
    with FaultyServer(signed) as server:
        run = bench.run(pinned(server.url + "/f", DATA), retries=1, connections=1)
    assert (run.code, run.report.bytes_fetched, run.retries) == (0, SIZE, 0)
    assert signed.refused > 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(25, 59)
def test_cut_and_expired(bench: Bench) -> None:
    """Signed URLs that are cut and void on each return are asked for anew, and no byte comes twice (C59, B25)."""
    signed = faults.Signed(DATA, requests=1, body=faults.short_body(DATA, MIB))
    with FaultyServer(signed) as server:
        run = bench.run(pinned(server.url + "/f", DATA), retries=2)
    assert (run.code, run.report.bytes_fetched, signed.minted) == (0, SIZE, 4)


@pytest.mark.fault(59)
def test_two_connections_meet_the_expiry(bench: Bench) -> None:
    """Connections that find the signed URL expired at the same moment all go on (C59)."""
    bench.segments(MIB)
    void: list[Request] = []

    def handler(request: Request, number: int) -> Answer:
        if request.path != "/signed":
            if void:  # both have had their refusal before the new URL is out
                together(2, [r for r in server.requests if r.path == "/f"][1:])
            return faults.redirects(f"/signed?n={number}")(request, number)
        first = (request.header("range") or "").startswith("bytes=0-")
        if not first and len(void) < 2:
            void.append(request)
            together(2, void)
            return reply(403, b"expired")
        return faults.honest(DATA)(request, number)

    def together(count: int, there: list[Request]) -> None:
        until(lambda: len(there) >= count, seconds=0.5, must=False)

    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=2)
    assert len(void) == 2
    assert run.code == 0


@pytest.mark.fault(59)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_refused_though_fresh(bench: Bench, data: bytes) -> None:
    """A fresh signed URL that is refused too is a refusal: 4, soon (C59)."""
    always = faults.choose(lambda r: r.path == "/signed", faults.answers(403), faults.redirects("/signed?sig=s3cr3t"))
    with FaultyServer(always) as server:
        run = bench.run(pinned(server.url + "/f", data))
        tries = len(server.requests)
    assert (run.code, run.error["code"]) == (4, "AUTH")
    assert tries <= 6
    assert "s3cr3t" not in str([run.report, run.events])


@pytest.mark.fault(60)
def test_signature_for_one_range(bench: Bench) -> None:
    """A signed URL that is good for one range only is made anew for each (C60)."""
    bench.segments(MIB)
    with FaultyServer(faults.Signed(DATA, one_range=True)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=1, retries=1)
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(59)
def test_signed_url_is_never_written_down(bench: Bench) -> None:
    """No signature reaches the report, an event, the journal or a receipt (C47, I6)."""
    signed = faults.Signed(DATA)
    with FaultyServer(signed) as server:
        file = pinned(server.url + "/f", DATA)
        signed_half = faults.Signed(DATA, body=faults.stall_in_body(DATA, MIB))
        server.handler = signed_half
        bench.run(file, stop_at=MIB)
        kept = b"".join(path.read_bytes() for path in bench.store.own.rglob("journal"))
        server.handler = signed
        run = bench.run(file)
        kept += b"".join(path.read_bytes() for path in bench.store.own.rglob("*.receipt"))
        signatures = [r.query for r in server.requests if r.query]
    assert run.code == 0
    assert kept
    assert signatures
    for query in signatures:
        assert query.split("sig=")[1][:40] not in kept.decode() + str([run.report, run.events])


@pytest.mark.fault(75)
def test_hub_listing_goes_on_elsewhere(bench: Bench) -> None:
    """A listing whose next page is at another origin is refused, and that origin never asked (C47, D75)."""
    with FaultyServer(faults.answers(200, body=b"[]")) as other:
        page = faults.answers(200, ("Link", f'<{other.url}/api/x>; rel="next"'), body=b"[]")
        with FaultyServer(page) as hub:
            run = bench.run(source=HubOrigin("org/repo", revision="a" * 40), hub=hub.url, token=TOKEN)
        assert other.requests == []
    assert run.code == 11


@pytest.mark.fault(47)
def test_probe_follows_the_same_rules(bench: Bench) -> None:
    """Asking for an unknown size obeys the allow-list as well, and an error there is the file's (C47)."""
    with FaultyServer(faults.redirects("http://localhost:{port}/x")) as server:
        run = bench.run(loose(server.url + "/f"))
        asked = len(server.requests)
    assert (run.code, asked) == (11, 1)
