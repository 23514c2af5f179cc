"""A thief on the database's port: whatever it answers, it gets no password and no session."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import struct
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from billingwatch.errors import DatabaseUnavailable
from billingwatch.postgres.connections import open_connection

PASSWORD = "the-password-of-the-service"
CLEAR_TEXT, MD5, SASL, CONTINUE, FINAL = 3, 5, 10, 11, 12
SCRAM = b"SCRAM-SHA-256\0\0"


def authentication(code: int, data: bytes = b"") -> bytes:
    return struct.pack("!cii", b"R", 8 + len(data), code) + data


LET_IN = authentication(0) + struct.pack("!ciii", b"K", 12, 1, 1) + struct.pack("!cic", b"Z", 5, b"I")


class Thief:
    """Accepts connections, refuses TLS, sends the given answers one by one and keeps what it receives."""

    def __init__(self, *answers: bytes | Callable[[bytes], bytes]) -> None:
        self.received: list[bytes] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(10)
        try:
            first = client.recv(4096)
            if first[4:8] == struct.pack("!i", 80877103):  # TLS request
                client.sendall(b"N")
                client.recv(4096)
            last = b""
            for answer in self._answers:
                client.sendall(answer(last) if callable(answer) else answer)
                last = client.recv(4096)
                self.received.append(last)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)


@pytest.fixture
def thief() -> Iterator[Callable[..., Thief]]:
    made: list[Thief] = []

    def make(*answers: bytes | Callable[[bytes], bytes]) -> Thief:
        made.append(Thief(*answers))
        return made[-1]

    yield make
    for each in made:
        each.close()


def challenge(client_first: bytes) -> bytes:
    nonce = client_first.rpartition(b"r=")[2]
    return authentication(CONTINUE, b"r=" + nonce + b"thief,s=" + b64encode(b"salt") + b",i=4096")


@pytest.mark.parametrize(
    "answers",
    [
        [authentication(CLEAR_TEXT), LET_IN],
        [authentication(MD5, b"salt"), LET_IN],
        [LET_IN],
        [authentication(SASL, SCRAM), LET_IN],
        [authentication(SASL, SCRAM), challenge, LET_IN],
        [
            authentication(SASL, SCRAM),
            challenge,
            authentication(FINAL, b"v=" + b64encode(bytes(32))) + LET_IN,
        ],
        [authentication(SASL, SCRAM), challenge, authentication(CLEAR_TEXT), LET_IN],
        [authentication(SASL, SCRAM), authentication(FINAL, b"v=") + LET_IN],
        [authentication(7), LET_IN],
        [b"R\0\0\0\3" + LET_IN],
        [b"R\0\0\0\5\0" + LET_IN],
        [b"R\x7f\0\0\0" + bytes(1000)],
    ],
    ids=[
        "clear text",
        "MD5",
        "no question",
        "no challenge",
        "no proof",
        "wrong proof",
        "clear text after SCRAM",
        "proof without challenge",
        "GSSAPI",
        "too short",
        "no code",
        "endless",
    ],
)
async def test_server_without_proof_gets_no_password_and_no_session(thief: Callable[..., Thief], answers: list[bytes]) -> None:
    fake = thief(*answers)
    dsn = f"postgresql://billingwatch:{PASSWORD}@127.0.0.1:{fake.port}/billingwatch"

    with pytest.raises(DatabaseUnavailable):
        await open_connection(dsn, "tests")

    heard = b"".join(fake.received)
    inner = hashlib.md5(f"{PASSWORD}billingwatch".encode()).hexdigest()  # noqa: S324 - PostgreSQL's old method
    md5 = hashlib.md5(f"{inner}salt".encode()).hexdigest()  # noqa: S324
    assert PASSWORD.encode() not in heard
    assert md5.encode() not in heard
    assert b"SELECT" not in heard


async def test_refusal_of_clear_text_says_how_to_change_it(thief: Callable[..., Thief]) -> None:
    fake = thief(authentication(CLEAR_TEXT))

    with pytest.raises(DatabaseUnavailable, match=r"clear-text password.*password_encryption = 'scram-sha-256'"):
        await open_connection(f"postgresql://billingwatch:{PASSWORD}@127.0.0.1:{fake.port}/billingwatch", "tests")


async def test_check_also_covers_passwords_from_the_environment(thief: Callable[..., Thief], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    fake = thief(authentication(CLEAR_TEXT))

    with pytest.raises(DatabaseUnavailable):
        await open_connection(f"postgresql://billingwatch@127.0.0.1:{fake.port}/billingwatch", "tests")

    assert PASSWORD.encode() not in b"".join(fake.received)


def test_challenge_of_the_thief_is_one_that_a_client_answers() -> None:
    """The cases above would pass for the wrong reason if the challenge was malformed."""
    nonce = b"n,,n=,r=abc"

    parts = dict(part.split(b"=", 1) for part in challenge(nonce)[9:].split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b64decode(parts[b"s"]), int(parts[b"i"]))

    assert parts[b"r"].startswith(b"abc")
    assert len(hmac.digest(salted, b"Client Key", "sha256")) == 32


async def test_login_by_scram_works_also_byte_by_byte(database: str) -> None:
    """A relay splits every message of the real server."""
    parts = urlsplit(database)
    query = dict(pair.split("=") for pair in parts.query.split("&")) if parts.query else {}
    relays: list[asyncio.Task[None]] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if query:
            directory = query["host"].replace("%2F", "/")
            server_reader, server_writer = await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.{query['port']}")
        else:
            server_reader, server_writer = await asyncio.open_connection(parts.hostname, parts.port)

        async def forward() -> None:
            while data := await reader.read(4096):
                server_writer.write(data)
            server_writer.close()

        relays.append(asyncio.ensure_future(forward()))
        while byte := await server_reader.read(1):
            writer.write(byte)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    dsn = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"

    connection = await open_connection(dsn, "tests")
    answer = await connection.fetchval("SELECT 42")
    await connection.close()
    await asyncio.gather(*relays)
    server.close()

    assert answer == 42


async def test_wrong_password_is_still_the_servers_error(database: str) -> None:
    parts = urlsplit(database)

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(parts._replace(netloc=parts.netloc.replace(parts.password or "", "guessed")).geturl())
