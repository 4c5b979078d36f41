"""Servers that bring next to nothing are given up on after a few requests, and the good mirror is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.bench import Bench, pinned
from support.data import MIB, noise
from support.faults import alternate, answers, choose, cut, ending, honest, moved, norange, short_206, wrong_start
from support.faults.base import Counter, Data
from support.faulty_server import Answer, FaultyServer, Handler, Request


def empty_206(data: Data, *, framing: str = "close") -> Handler:
    """206 with the right Content-Range and no byte of it: without a length, or in a chunked body that ends at once."""
    right = honest(data)
    more = [("Transfer-Encoding", "chunked")] if framing == "chunked" else []
    body = b"0\r\n\r\n" if framing == "chunked" else b""

    def handler(request: Request, number: int) -> Answer:
        answer = right(request, number)
        if answer.status != 206:
            return answer
        kept = [header for header in answer.headers if header[0] != "Content-Length"]
        return Answer(206, [*kept, *more], body, "keep" if more else "close")

    return handler


def whole_cut_later(data: Data, *, by: int = 1) -> Handler:
    """No ranges: the whole file each time, cut ``by`` bytes later than the time before."""
    right, times = norange(data), Counter()

    def handler(request: Request, number: int) -> Answer:
        at = min(len(data) - 1, 1000 + by * times())
        return cut(right, at)(request, number)

    return handler


def _one_byte(data: Data) -> Handler:
    return short_206(data, cap=1)


def _through(body: Handler) -> Handler:
    """The body's host is named by a redirect, as a signed URL is."""
    away = moved(b"", "/signed")
    return lambda request, number: (body if request.path == "/signed" else away)(request, number)


def _refuses_ranges(data: Data) -> Handler:
    """Who asks for a range gets one byte of it or 403, by turns; who asks for none gets the whole file, so that it does
    not matter in which order eight connections ask."""
    by_turns = alternate(_one_byte(data), answers(403))
    return choose(lambda request: request.header("range") is not None, by_turns, honest(data))


STINGY: dict[str, Callable[[Data], Handler]] = {
    "206 without length, empty": lambda data: empty_206(data),
    "206 chunked, empty": lambda data: empty_206(data, framing="chunked"),
    "one byte an answer": _one_byte,
    "one byte an answer, then closed": lambda data: ending(_one_byte(data), "close"),
    "one byte, then 403 of the signed URL": lambda data: _through(_refuses_ranges(data)),
    "one byte, then cut": lambda data: cut(honest(data), 1),
    "one byte, then a lie": lambda data: alternate(_one_byte(data), wrong_start(data)),
    "one byte, then 429": lambda data: alternate(_one_byte(data), answers(429)),
    "the whole, cut one byte later each time": whole_cut_later,
    "4 KiB an answer": lambda data: short_206(data, cap=4096),
}
"""Ten servers, by what they do; each has strong ETags and a file that a digest is known of."""
SERVES_IT_WHOLE = ("one byte, then 403 of the signed URL", "one byte, then a lie")
"""Once a range was refused for good, the whole file is asked for, on one connection. These two serve that."""


DATA = noise(3 * MIB)
MOST = 40
"""Requests that eight connections may spend on a server that brings nothing: five tries, or three lies, of each."""


@pytest.mark.fault(221)
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("name", STINGY)
def test_it_is_given_up(bench: Bench, name: str, connections: int) -> None:
    """A few requests, then the server's fault (4, 5 or 6), whatever it brings a byte at a time. Of eight connections
    some may use up the tries of a failing network (5) before others have learnt that ranges are refused."""
    bench.segments(256 * 1024)
    with FaultyServer(STINGY[name](DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=connections, retries=5)
        requests = len(server.requests)
    expected = {4, 5, 6}
    if name in SERVES_IT_WHOLE:
        expected = {0} if connections == 1 else {0, 5}
    assert run.code in expected
    assert requests <= MOST
    assert bench.final.exists() == (run.code == 0)


@pytest.mark.fault(221)
@pytest.mark.parametrize("name", STINGY)
def test_the_mirror_is_asked(bench: Bench, name: str) -> None:
    """A mirror that the catalog names brings the file, after a few requests to the server that does not."""
    with FaultyServer(STINGY[name](DATA)) as server, FaultyServer(honest(DATA)) as mirror:
        run = bench.run(pinned(server.url + "/f", DATA, mirrors=[mirror.url + "/f"]), retries=5)
        requests = len(server.requests)
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True)
    assert requests <= MOST


def test_what_came_is_counted(bench: Bench) -> None:
    """The message of a cut connection counts every byte that came, those read with the answer's head too."""
    with FaultyServer(STINGY["one byte, then cut"](DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=1, retries=1)
    assert f"ended after 1 of {len(DATA):,} bytes" in run.error["message"]
