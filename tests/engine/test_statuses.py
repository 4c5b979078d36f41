"""The engine against refusals, Retry-After and signed URLs that expire (faults, group C)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply
from support.polling import until

from mdl.errors import NetworkError
from mdl.events import Failed, Retrying
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.pacer import OriginRecord
from mdl.net.policy import Limits

DATA, TINY = noise(4 * MIB), noise(50_000, 1)
SIZE = len(DATA)
BOTH_SIZES = pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])


@pytest.mark.fault(56)
@BOTH_SIZES
@pytest.mark.parametrize(
    ("status", "code"), [(400, 5), (401, 4), (403, 4), (404, 3), (405, 5), (407, 4), (410, 3), (451, 5), (501, 5)]
)
def test_final_statuses(bench: Bench, status: int, code: int, data: bytes) -> None:
    """A refusal that will not pass is reported at once, in the server's words, without a second try (C56)."""
    run = bench.fetch(faults.answers(status, body=b"because of the weather\n"), data)
    assert (run.code, len(run.requests), run.retries) == (code, 1, 0)
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
        until(lambda: len(gone) == 2)
        return reply(404, b"gone")

    run = bench.fetch(handler, DATA, connections=2)
    assert (run.code, len(gone)) == (3, 2)
    assert sum(isinstance(event, Failed) for event in run.events) == 1


@pytest.mark.fault(57)
@pytest.mark.parametrize("status", faults.RETRIED)
def test_passing_statuses(bench: Bench, status: int) -> None:
    """A refusal that may pass is tried again, as often as allowed: then the file arrives, or it is 5 (C57)."""
    run = bench.fetch(faults.busy(faults.honest(DATA), times=2, status=status), DATA, retries=3)
    assert (run.code, run.retries) == (0, 2)
    run = bench.fetch(faults.answers(status), TINY, path="other", retries=4)
    assert (run.code, len(run.requests)) == (5, 4)


def in_a_minute() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)


@pytest.mark.fault(58)
@pytest.mark.parametrize(
    ("said", "wish"),
    [("3", (3, 3)), (in_a_minute, (1, 60)), ("Thu, 01 Jan 2015 00:00:00 GMT", (0, 0)), ("soon", None), ("-5", None)],
    ids=["seconds", "date", "past", "garbage", "negative"],
)
def test_retry_after(bench: Bench, said: object, wish: tuple[int, int] | None) -> None:
    """Retry-After is obeyed in seconds and as a date; nonsense in it is ignored (C58)."""
    text = said() if callable(said) else said
    assert bench.fetch(faults.busy(faults.honest(DATA), retry_after=str(text)), DATA).code == 0
    waited, *_ = bench.waits
    assert (waited is None) if wish is None else (waited is not None and wish[0] <= waited <= wish[1])


@pytest.mark.fault(58)
def test_retry_after_too_long(bench: Bench) -> None:
    """A server that asks to wait for years is given up at once, in its own words (C58)."""
    run = bench.fetch(faults.busy(faults.honest(DATA), retry_after="1000000000"), DATA)
    assert (run.code, len(run.requests), bench.waits) == (5, 1, [])
    assert "1000000000" in run.error["message"]


@pytest.mark.fault(59)
def test_signed_urls_expire(bench: Bench) -> None:
    """An expired signed URL is requested anew and the file goes on at the same byte; no attempt is used up (C59)."""
    bench.segments(MIB)
    signed = faults.Signed(DATA, requests=1)
    run = bench.fetch(signed, DATA, retries=1, connections=1)
    assert (run.code, run.report.bytes_fetched, run.retries) == (0, SIZE, 0)
    assert signed.refused > 0
    assert bench.has(DATA)


@pytest.mark.fault(25, 59)
def test_cut_and_expired(bench: Bench) -> None:
    """Signed URLs that are cut and void on each return are requested anew, and no byte comes twice (C59, B25)."""
    signed = faults.Signed(DATA, requests=1, body=faults.short_body(DATA, MIB))
    run = bench.fetch(signed, DATA, retries=2)
    assert (run.code, run.report.bytes_fetched, signed.minted) == (0, SIZE, 4)


@pytest.mark.fault(59)
def test_two_connections_meet_the_expiry(bench: Bench) -> None:
    """Connections that find the signed URL expired at the same moment all go on (C59)."""
    bench.segments(MIB)
    void: list[Request] = []

    def handler(request: Request, number: int) -> Answer:
        if request.path != "/signed":
            if void:  # both have had their refusal before the new URL is out
                until(lambda: len(void) == 2 and all(refused.sent for refused in void))
            return faults.redirects(f"/signed?n={number}")(request, number)
        first = (request.header("range") or "").startswith("bytes=0-")
        if not first and len(void) < 2:
            void.append(request)
            until(lambda: len(void) == 2)
            return reply(403, b"expired")
        return faults.honest(DATA)(request, number)

    assert bench.fetch(handler, DATA, connections=2).code == 0
    assert len(void) == 2


@pytest.mark.fault(59)
@BOTH_SIZES
def test_refused_though_fresh(bench: Bench, data: bytes) -> None:
    """A fresh signed URL that is refused too is a refusal: 4, soon (C59)."""
    always = faults.choose(lambda r: r.path == "/signed", faults.answers(403), faults.redirects("/signed?sig=s3cr3t"))
    run = bench.fetch(always, data)
    assert (run.code, run.error["code"]) == (4, "AUTH")
    assert len(run.requests) <= 6
    assert "s3cr3t" not in str([run.report, run.events])


@pytest.mark.fault(60)
def test_signature_for_one_range(bench: Bench) -> None:
    """A signed URL that is good for one range only is requested anew for each (C60)."""
    bench.segments(MIB)
    assert bench.fetch(faults.Signed(DATA, one_range=True), DATA, connections=1, retries=1).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(59)
def test_signed_url_is_never_written_down(bench: Bench) -> None:
    """No signature reaches the report, an event, the journal or a receipt (C47, I6)."""
    with FaultyServer(faults.Signed(DATA, body=faults.stall_in_body(DATA, MIB))) as server:
        file = pinned(server.url + "/f", DATA)
        bench.run(file, stop_at=MIB)
        kept = b"".join(path.read_bytes() for path in bench.store.own.rglob("journal"))
        server.handler = faults.Signed(DATA)
        run = bench.run(file)
        kept += b"".join(path.read_bytes() for path in bench.store.own.rglob("*.receipts"))
        signatures = [request.query for request in server.requests if request.query]
    assert (run.code, bool(kept), bool(signatures)) == (0, True, True)
    for query in signatures:
        assert query.split("sig=")[1][:40] not in kept.decode() + str([run.report, run.events])


@pytest.mark.fault(47)
def test_probe_follows_the_same_rules(bench: Bench) -> None:
    """A request for an unknown size obeys the allow-list as well, and an error there is the file's (C47)."""
    run = bench.fetch(faults.redirects("http://localhost:{port}/x"), DATA, known=False)
    assert (run.code, len(run.requests)) == (11, 1)


def not_yet(status: int, wish: str) -> Handler:
    """That status with Retry-After, three times, then the file."""
    later = reply(status, b"" if status == 204 else b"thawing, please wait", *([("Retry-After", wish)] if wish else []))
    return faults.first(3, faults.always(later), faults.honest(DATA))


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    ("status", "wish"),
    [(202, "2"), (202, ""), (204, "2"), (409, "2"), (423, "2"), (425, ""), (429, "2"), (503, "2")],
)
@pytest.mark.parametrize("known", [True, False])
def test_not_yet(bench: Bench, status: int, wish: str, known: bool) -> None:
    """A server that is preparing the file is waited for, as it asks, and its words are told."""
    run = bench.fetch(not_yet(status, wish), DATA, known=known, retries=9)
    assert (run.code, bench.has(DATA)) == (0, True)
    assert bench.waits[0] == (float(wish) if wish else None)
    told = [event.why for event in run.events if isinstance(event, Retrying)]
    assert status == 204 or "thawing, please wait" in told[0]
    assert status != 202 or "is preparing the file (202 Accepted)" in told[0]


def test_an_archived_object_is_final(bench: Bench) -> None:
    """An object of an archive that nobody has asked back is told in the bucket's words, and not waited for."""
    words = b"<Error><Code>InvalidObjectState</Code><Message>The object's storage class is GLACIER</Message></Error>"
    run = bench.fetch(faults.answers(403, ("Content-Type", "application/xml"), body=words), DATA)
    assert (run.code, run.retries) == (4, 0)
    assert "storage class is GLACIER" in run.error["message"]


@pytest.mark.parametrize("known", [True, False])
@BOTH_SIZES
def test_silence_before_the_first_byte(bench: Bench, data: bytes, known: bool) -> None:
    """A server that accepts a connection and is silent gets twice the time at each new try, and then the file comes."""
    slow = faults.first(3, faults.stall_before_headers(), faults.honest(data))
    with FaultyServer(slow) as server:
        file = pinned(f"{server.url}/f", data) if known else loose(f"{server.url}/f")
        run = bench.run(file, stall=0.1, retries=9)
    assert (run.code, bench.has(data)) == (0, True)


@pytest.mark.parametrize("known", [True, False])
def test_nothing_ever_came(bench: Bench, known: bool) -> None:
    """If nothing ever comes the hint names --stall, and nothing is said to be kept."""
    run = bench.fetch(faults.stall_before_headers(), DATA, known=known, stall=0.1, retries=3)
    assert run.code == 5
    assert "--stall 10m" in run.error["hint"]
    assert "kept" not in run.error["hint"]


@pytest.mark.parametrize("handler", [faults.answers(503), faults.short_body(DATA, 0)], ids=["503", "cut at once"])
def test_no_hint_claims_what_was_not_kept(bench: Bench, handler: Handler) -> None:
    """Where nothing was fetched, no hint says that it is kept; where something was, the hint says so."""
    assert "kept" not in bench.fetch(handler, DATA, retries=2).error["hint"]
    later = faults.choose(faults.resumes, handler, faults.short_body(DATA, MIB))
    assert "what was fetched is kept" in bench.fetch(later, DATA, retries=2).error["hint"]


def _quickly_stalled() -> HttpClient:
    return HttpClient(AllowList.of(["127.0.0.1"]), limits=Limits(stall=0.1))


@pytest.mark.parametrize("length", [SIZE, None], ids=["large", "unknown"])
def test_silence_after_the_head(length: int | None) -> None:
    """A head that comes at once, and no byte of the body in time, is a silence too: the next answer gets twice as
    long. What comes after the first byte is not."""
    with FaultyServer(faults.stall_in_body(DATA, 0)) as server, _quickly_stalled() as http:
        waited: list[float] = []
        for _ in range(3):
            waited.append(http.record(server.url).first_byte_limit(0.1, 300.0))
            with pytest.raises(NetworkError) as told, http.open("GET", server.url + "/f") as opened:
                list(http.body(opened, length))
            assert told.value.is_silence
            assert "--stall 10m" in (told.value.hint or "")
        assert waited == [0.1, 0.2, 0.4]
        server.handler = faults.stall_in_body(DATA, MIB)
        with pytest.raises(NetworkError), http.open("GET", server.url + "/f") as opened:
            list(http.body(opened, SIZE))
        assert http.record(server.url).silences == 3


def test_a_silent_origin_gets_more_time() -> None:
    """Twice the time after each silence, those that overlap counted once, up to the patience, never under --stall."""
    record = OriginRecord()
    for began, now in ((0.0, 30.0), (1.0, 31.0), (30.5, 90.5), (91.0, 211.0)):
        record.note_silence(began, now)
    assert record.first_byte_limit(30.0, 300.0) == 240.0
    assert record.first_byte_limit(60.0, 300.0) == 300.0
    assert record.first_byte_limit(600.0, 300.0) == 600.0
