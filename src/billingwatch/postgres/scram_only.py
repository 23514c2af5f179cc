"""Password logins by SCRAM alone: client and server prove to each other that they know the password.

asyncpg answers a request for the clear-text password from any server, and accepts a server that proves nothing. It
has no option like libpq's `require_auth`, so this module checks the messages of a login before asyncpg reads them.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from typing import Any

import asyncpg
from asyncpg import protocol

OK, SASL, SASL_CONTINUE, SASL_FINAL = 0, 10, 11, 12  # codes of an authentication message
METHODS = {
    2: "Kerberos",
    3: "the clear-text password",
    5: "an MD5 password",
    7: "GSSAPI",
    8: "GSSAPI",
    9: "SSPI",
}
HEADER = struct.Struct("!ci")  # type of a message, and its length without the type
CODE = struct.Struct("!i")
LONGEST = 65_536  # bytes of one message before the login is complete
ADVICE = "set the role's password again with password_encryption = 'scram-sha-256', or take the password out of BILLINGWATCH_DATABASE_URL"
MALFORMED = "the server's login message is malformed"


class UnsafeLogin(asyncpg.InterfaceError):
    """The server did not request SCRAM, or did not prove that it knows the password."""


class ScramOnlyProtocol(protocol.Protocol):
    """asyncpg's protocol, which sees the messages of a login only after they are checked."""

    def __init__(
        self,
        addr: object,
        connected_fut: asyncio.Future[object],
        con_params: Any,  # noqa: ANN401 - asyncpg's signature
        record_class: type,
        loop: object,
    ) -> None:
        super().__init__(addr, connected_fut, con_params, record_class, loop)
        self._connected = connected_fut
        self._has_password = bool(con_params.password)
        tls = con_params.ssl
        self._server_is_certified = isinstance(tls, ssl.SSLContext) and tls.verify_mode == ssl.CERT_REQUIRED
        self._login: bytearray | None = bytearray()  # bytes of an incomplete message; None after the login
        self._step = OK
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncpg's signature
        self._wire = transport
        super().connection_made(transport)

    def data_received(self, data: Any) -> None:  # noqa: ANN401 - bytes
        if self._login is None:
            super().data_received(data)
            return
        self._login += data
        try:
            while self._login is not None and (message := self._next_message(self._login)) is not None:
                if message[:1] == b"R" and self._check(CODE.unpack_from(message, HEADER.size)[0]):
                    message += bytes(self._login)
                    self._login = None
                # One by one: asyncpg verifies the server's proof before the next message is checked.
                super().data_received(message)
        except (UnsafeLogin, struct.error) as error:
            self._refuse(error if isinstance(error, UnsafeLogin) else UnsafeLogin(MALFORMED))

    def _next_message(self, pending: bytearray) -> bytes | None:
        if len(pending) < HEADER.size:
            return None
        _, length = HEADER.unpack_from(pending)
        if not CODE.size <= length <= LONGEST:
            raise UnsafeLogin(MALFORMED)
        end = 1 + length
        if len(pending) < end:
            return None
        found = bytes(pending[:end])
        del pending[:end]
        return found

    def _check(self, code: int) -> bool:
        """Return whether the login is complete. Raises UnsafeLogin if the message must not follow the one before."""
        if code == OK:
            proven = self._step == SASL_FINAL and not self._connected.done()
            if self._has_password and not proven and not self._server_is_certified:
                message = f"the server let us in and did not prove that it knows the password; {ADVICE}"
                raise UnsafeLogin(message)
            return True
        if code in METHODS and (self._has_password or code in {3, 5}):
            message = f"the server requested {METHODS[code]}, and only SCRAM-SHA-256 is allowed; {ADVICE}"
            raise UnsafeLogin(message)
        if code in {SASL, SASL_CONTINUE, SASL_FINAL}:
            if code != {OK: SASL, SASL: SASL_CONTINUE, SASL_CONTINUE: SASL_FINAL}.get(self._step):
                message = "the server's login messages are out of order"
                raise UnsafeLogin(message)
            self._step = code
        return False

    def _refuse(self, error: UnsafeLogin) -> None:
        self._login = bytearray()
        if not self._connected.done():
            self._connected.set_exception(error)
        if self._wire is not None:
            self._wire.abort()


def require_scram() -> None:
    """Check every later login of asyncpg in this process. asyncpg has no parameter for its protocol class."""
    protocol.Protocol = ScramOnlyProtocol  # type: ignore[assignment, misc]
