"""How uvicorn runs the application: our connections, no access log, nothing about the server in answers."""

from __future__ import annotations

import uvicorn

from billingwatch.server.buffered import ServerConnection
from billingwatch.server.limits import BACKLOG


def server_config(app: object, **options: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=ServerConnection,  # type: ignore[arg-type] # a BufferedProtocol; uvicorn only calls it
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # no code reads the client's address from a header
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        **options,  # type: ignore[arg-type]
    )
