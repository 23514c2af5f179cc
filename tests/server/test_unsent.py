"""Answers that nobody takes are bounded in bytes."""

from __future__ import annotations

from .conftest import Sender, until

GET_LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 1024 * 1024


def stalled(server) -> Sender:
    """Ask for 32 MiB and take nothing."""
    reader = server.connect()
    reader.send(GET_LARGE)
    return reader


def test_stalled_readers_beyond_the_limit_are_closed_oldest_first(serve):
    server = serve(unsent_bytes=4 * MIB)
    readers = [stalled(server) for _ in range(20)]

    until(lambda: len(server.application.bodies) == 20)
    until(lambda: len(server.application.connections) <= 8)

    newcomer = server.connect()
    newcomer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert newcomer.answer()[0] == 200
    assert len(readers[0].rest()) < 32 * MIB


def test_single_answer_larger_than_the_limit_is_sent_whole(serve):
    server = serve(unsent_bytes=1024)
    reader = server.connect()

    reader.send(GET_LARGE)

    assert len(reader.answer()[2]) == 32 * MIB
