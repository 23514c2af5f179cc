"""What one connection may take: bytes outside the body, seconds, requests, and a bounded read."""

from __future__ import annotations

import time

import pytest

from .conftest import LARGE, statuses, until

KIB = 1024
MIB = 1024 * KIB
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LINGER = 60.0  # seconds
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_complete_request_is_answered_and_connection_reused(serve):
    sender = serve().connect()

    answers = []
    for size in (0, 5, 300 * KIB):
        sender.send(POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        answers.append(sender.answer())

    assert [(status, body) for status, _, body in answers] == [(200, b"0"), (200, b"5"), (200, b"307200")]


def test_body_in_chunks_is_read_whole(serve):
    sender = serve().connect()

    sender.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"2000\r\n" + b"x" * 8192 + b"\r\n" + b"3\r\nabc\r\n0\r\n\r\n")

    assert sender.answer()[2] == b"8195"


def test_headers_of_60_kib_are_accepted(serve):
    sender = serve().connect()

    sender.send(b"GET / HTTP/1.1\r\nX-A: " + b"a" * (60 * KIB) + b"\r\n\r\n")

    assert sender.answer()[0] == 200


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /",
        b"GET / HTTP/1.1\r\nX-A: ",
        b"GET / HTTP/1.1\r\nX-A",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-A: ",
    ],
    ids=["method", "target", "value", "name", "chunk-extension", "extension-value", "trailer"],
)
def test_endless_input_outside_the_body_is_refused(serve, start):
    server = serve(linger_seconds=LINGER)
    sender = server.connect()

    sender.send(start)
    began = time.monotonic()
    sent = sender.send_until_cut(b"a" * (64 * KIB), 100 * MIB)
    status = statuses(sender.rest())

    assert sent < 40 * MIB  # what is dropped while the sender may read the answer, and socket buffers
    assert time.monotonic() - began < LINGER / 2  # cut off by its bytes, not by the deadline
    assert status in ([], [400], [431])  # a sender that goes on may lose the answer
    assert server.application.bodies == []


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX-A: ", b"GET / HTTP/1.1\r\nX-A"], ids=["target", "value", "name"])
def test_headers_over_64_kib_get_431(serve, start):
    sender = serve().connect()

    sender.send(start + b"a" * (70 * KIB))
    status, headers, _ = sender.answer()

    assert (status, headers["connection"]) == (431, "close")
    assert sender.rest() == b""


def test_many_short_headers_over_64_kib_get_431(serve):
    sender = serve().connect()

    sender.send(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (11 * KIB))

    assert sender.answer()[0] == 431


def test_endless_line_breaks_before_a_request_are_refused(serve):
    sender = serve().connect()

    sender.send(b"\r\n" * (40 * KIB))

    assert sender.answer()[0] == 431


def test_trailers_over_64_kib_end_the_request(serve):
    server = serve()
    sender = server.connect()

    sender.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"a: b\r\n" * (11 * KIB))

    assert sender.answer()[0] == 431
    assert server.application.gone.wait(20)


def test_input_that_is_not_http_gets_400(serve):
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"hello\r\n\r\n", b"GET \xff\xfe HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        sender = serve().connect()

        sender.send(garbage)

        assert statuses(sender.rest()) == [400]


def test_pipelined_requests_after_the_first_are_dropped(serve):
    server = serve()
    sender = server.connect()

    sender.send(GET * 5000)

    assert statuses(sender.rest()) == [200]
    assert server.application.bodies == [0]


def test_request_during_another_ends_the_connection_after_its_answer(serve):
    server = serve()
    sender = server.connect()

    sender.send(b"GET /held HTTP/1.1\r\n\r\n")
    assert server.application.held.wait(20)
    sender.send(b"GET / HTTP/1.1\r\nX-Second: 1\r\n\r\n")
    server.application.release()

    assert statuses(sender.rest()) == [200]
    assert len(server.application.bodies) == 1


def test_upgrade_request_is_answered_as_plain_http_and_closed(serve):
    sender = serve().connect()

    sender.send(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    status, headers, _ = sender.answer()

    assert (status, headers["connection"]) == (200, "close")
    assert sender.rest() == b""


def test_silent_connection_is_closed_without_an_answer(serve):
    sender = serve(header_seconds=0.2).connect()

    assert sender.rest() == b""


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nX-A: a"])
def test_incomplete_headers_get_408(serve, part):
    sender = serve(header_seconds=0.2).connect()

    sender.send(part)
    status, headers, _ = sender.answer()

    assert (status, headers["connection"]) == (408, "close")
    assert sender.rest() == b""


def test_headers_in_trickles_get_408(serve):
    sender = serve(header_seconds=0.3).connect()

    sender.send(b"GET / HTTP/1.1\r\n")
    sent = 0
    while not sender.closed and sent < 1000:
        sender.send_until_cut(b"a: b\r\n", 1)
        sent += 1

    assert sent < 1000


def test_headers_of_a_later_request_get_408(serve):
    sender = serve(header_seconds=0.3, idle_seconds=60).connect()
    sender.send(GET)
    sender.answer()

    sender.send(b"GET / HT")

    assert sender.answer()[0] == 408


def test_stalled_body_gets_408_and_the_handler_ends(serve):
    server = serve(stall_seconds=0.2)
    sender = server.connect()

    sender.send(POST + b"Content-Length: 100\r\n\r\nabc")

    assert sender.answer()[0] == 408
    assert sender.rest() == b""
    assert server.application.gone.wait(20)
    assert server.application.bodies == []


def test_body_in_trickles_gets_408(serve):
    server = serve(body_seconds=0.5)
    sender = server.connect()

    sender.send(POST + b"Content-Length: 100000\r\n\r\n")
    sent = 0
    while not server.application.gone.wait(0.01) and sent < 2000:
        sender.send_until_cut(b"x", 1)
        sent += 1

    assert server.application.gone.is_set()
    assert 408 in statuses(sender.rest())


def test_idle_connection_is_closed_after_its_answer(serve):
    sender = serve(idle_seconds=0.2, header_seconds=60).connect()
    sender.send(GET)
    sender.answer()

    assert sender.rest() == b""


def test_request_without_an_answer_has_no_deadline(serve):
    server = serve(header_seconds=0.1, idle_seconds=0.1, stall_seconds=0.1, body_seconds=0.1, linger_seconds=0.1)
    held = server.connect()
    held.send(b"GET /held HTTP/1.1\r\n\r\n")
    assert server.application.held.wait(20)

    for _ in range(3):  # each of them is closed by a sweep that leaves the held one alone
        assert server.connect().rest() == b""
    server.application.release()

    assert held.answer()[0] == 200


def test_early_answer_reaches_a_sender_of_a_large_body(serve):
    sender = serve().connect()

    sender.send(b"POST /early?close HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
    sender.send(b"x" * (8 * MIB))
    status, headers, _ = sender.answer()

    assert (status, headers["connection"]) == (200, "close")
    assert sender.rest() == b""


def test_early_answer_without_close_keeps_the_connection(serve):
    sender = serve().connect()

    sender.send(b"POST /early HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
    first = sender.answer()
    sender.send(b"x" * 100_000 + GET)

    assert [first[0], sender.answer()[0]] == [200, 200]


def test_body_after_an_early_answer_is_bounded(serve):
    sender = serve(linger_bytes=MIB).connect()

    sender.send(b"POST /early HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    sender.answer()
    sent = sender.send_until_cut(b"4000\r\n" + b"x" * 0x4000 + b"\r\n", 100 * MIB)

    assert sent < 40 * MIB


def test_body_after_an_early_answer_has_a_deadline(serve):
    sender = serve(linger_seconds=0.2).connect()

    sender.send(b"POST /early HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
    sender.answer()

    assert sender.rest() == b""


def test_sender_that_reads_no_answer_is_cut_off(serve):
    server = serve(stall_seconds=0.2)
    sender = server.connect()

    sender.send(b"GET /large HTTP/1.1\r\n\r\n")
    until(lambda: bool(server.application.bodies))
    until(lambda: len(server.application.connections) == 0)

    assert len(sender.rest()) < LARGE


def test_slow_reader_gets_the_whole_answer(serve):
    sender = serve(stall_seconds=2, idle_seconds=0.1).connect()

    sender.send(b"GET /large HTTP/1.1\r\n\r\n")
    _, _, body = sender.answer()

    assert len(body) == LARGE


def test_sender_that_hangs_up_ends_its_request(serve):
    server = serve()
    sender = server.connect()

    sender.send(POST + b"Content-Length: 100\r\n\r\nabc")
    sender.socket.close()

    assert server.application.gone.wait(20)
    until(lambda: len(server.application.connections) == 0)
