"""The floor under every HTTP figure: a Litestar handler that reads the body, does nothing with it, and answers as the webhook does."""

from __future__ import annotations

import socket
import sys

import uvicorn
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

_BODY = b'{"status":"ok"}'


@asgi("/webhook", is_mount=True, copy_scope=True)
async def idle(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - Litestar asks for the name
    """Cost what HTTP and the framework cost."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY, "more_body": False})


def main() -> None:
    """Listen on a free port and say which, as `billingwatch serve` does."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stderr.flush()
    app = Litestar([idle], openapi_config=None, logging_config=None)
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on")).run(sockets=[listener])


if __name__ == "__main__":
    main()
