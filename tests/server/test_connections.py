"""The number of connections is bounded, and those without a complete request make room."""

from __future__ import annotations

import asyncio
import math
import resource
import subprocess
import sys

from billingwatch.server.connections import Connections
from billingwatch.server.limits import Limits, connections_within

from .conftest import until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_oldest_idle_connection_makes_room(serve):
    server = serve(connections=4)
    idle = [server.connect() for _ in range(4)]
    until(lambda: len(server.application.connections) == 4)

    newcomer = server.connect()
    newcomer.send(GET)
    status = newcomer.answer()[0]

    assert status == 200
    assert idle[0].rest() == b""
    idle[1].send(GET)
    assert idle[1].answer()[0] == 200


def test_flood_of_half_headers_never_keeps_a_sender_out(serve):
    server = serve(connections=20)

    answers = []
    for _ in range(10):
        for _ in range(30):
            server.connect().send_until_cut(b"GET / HTTP/1.1\r\nX-A: a", 1)
        sender = server.connect()
        sender.send(GET)
        answers.append(sender.answer()[0])

    assert answers == [200] * 10
    assert len(server.application.connections) <= 20


def test_connection_in_use_is_not_the_one_that_makes_room(serve):
    server = serve(connections=2)
    busy = server.connect()
    busy.send(b"GET /held HTTP/1.1\r\n\r\n")
    assert server.application.held.wait(20)
    server.connect()
    until(lambda: len(server.application.connections) == 2)

    newcomer = server.connect()
    newcomer.send(GET)
    status = newcomer.answer()[0]
    server.application.release()

    assert (status, busy.answer()[0]) == (200, 200)


def test_unfinished_bodies_make_room_when_no_idle_connection_is_left(serve):
    server = serve(connections=3)
    uploads = [server.connect() for _ in range(3)]
    for upload in uploads:
        upload.send(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
    until(lambda: not server.application.connections._waiting)

    newcomer = server.connect()
    newcomer.send(GET)

    assert newcomer.answer()[0] == 200
    assert uploads[0].rest() == b""
    assert server.application.gone.wait(20)


def test_newcomer_gets_503_when_every_connection_has_a_request(serve):
    server = serve(connections=1)
    busy = server.connect()
    busy.send(b"GET /held HTTP/1.1\r\n\r\n")
    assert server.application.held.wait(20)

    status, headers, _ = server.connect().answer()
    server.application.release()

    assert (status, int(headers["retry-after"]) > 0) == (503, True)
    assert busy.answer()[0] == 200


def test_answered_connection_is_the_youngest_of_those_that_wait(serve):
    server = serve(connections=2)
    first = server.connect()
    until(lambda: len(server.application.connections) == 1)
    second = server.connect()
    until(lambda: len(server.application.connections) == 2)
    first.send(GET)
    first.answer()

    server.connect()

    assert second.rest() == b""
    first.send(GET)
    assert first.answer()[0] == 200


async def test_sweep_expires_only_connections_past_their_deadline():
    class One:
        def __init__(self, deadline: float) -> None:
            self.deadline = deadline
            self.expired: list[float] = []

        def expire(self, now: float) -> None:
            self.expired.append(now)

        def evict(self) -> None:
            raise AssertionError

    connections = Connections(Limits())
    now = asyncio.get_running_loop().time()
    past, future, never = One(now - 1), One(now + 60), One(math.inf)
    for one in (past, future, never):
        assert connections.admit(one)

    connections.sweep(now)

    assert (past.expired, future.expired, never.expired) == ([now], [], [])


def test_limit_leaves_descriptors_for_database_files_and_a_backlog():
    assert connections_within(4096, 1_048_576, database_connections=16) == 4096
    assert connections_within(4096, 1024, database_connections=16) == 1024 - 256 - 64 - 16
    assert connections_within(4096, 100, database_connections=16) == 16
    assert connections_within(4096, resource.RLIM_INFINITY, database_connections=16) == 4096


def test_soft_limit_of_descriptors_is_raised_to_the_hard_one():
    script = (
        "import resource; from billingwatch.server.limits import raise_files_limit;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); print(raise_files_limit())"
    )

    printed = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True, text=True).stdout

    assert printed == "300\n"
