"""`billingwatch serve`: the HTTP service, with the processor inside or beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import rich_click as click
import structlog
import uvicorn

from billingwatch.app import create_app
from billingwatch.cli.output import talk
from billingwatch.cli.processes import HttpProcesses, WorkerProcess
from billingwatch.cli.session import check_database
from billingwatch.errors import InputInvalid
from billingwatch.logs import protect_stderr
from billingwatch.postgres.database import open_database
from billingwatch.server.config import server_config
from billingwatch.settings import load_settings

log = structlog.get_logger()

LISTEN_SECONDS = 3.0  # that the processes of a killed service may keep the port
LISTEN_PAUSE = 0.1  # seconds between two attempts
SHUTDOWN_SECONDS = 20  # what requests in flight get before they are cut off


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, envvar="BILLINGWATCH_CLI_HOST", help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="BILLINGWATCH_CLI_PORT",
    help="Port; 0 takes a free one.",
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), envvar="BILLINGWATCH_CLI_WORKERS", help="Server processes."
)
@click.option("--no-worker", is_flag=True, help="Do not process events here; run `billingwatch worker` elsewhere.")
def serve(host: str, port: int, workers: int, *, no_worker: bool) -> None:
    """Receive webhooks, serve the API, and process events unless `--no-worker`."""
    # Uvicorn ends gracefully and then raises the signal again: let it end this process in order too, so that the database is released.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    protect_stderr()
    settings = load_settings()
    listener = _listen(host, port)
    with open_database(settings) as database, database.kept_up():
        asyncio.run(check_database(settings, database))
        talk.print(f"listening on http://{_authority(listener)}", markup=False)
        if workers == 1:
            config = _config(create_app(settings, database.dsn, processing=not no_worker))
            server = uvicorn.Server(config)
            server.run(sockets=[listener])
            if not server.started:
                sys.exit(1)
        else:
            _serve_with_many(listener, workers, processing=not no_worker)


def _serve_with_many(listener: socket.socket, workers: int, *, processing: bool) -> None:
    shared = Path(tempfile.mkdtemp(prefix="billingwatch-metrics-"))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)  # how the processes' counters become one
    worker = WorkerProcess() if processing else None
    try:
        config = _config("billingwatch.app:create_app_of_worker", factory=True, workers=workers)
        processes = HttpProcesses(config, listener, worker, shared)
        try:
            processes.run()
        except BaseException:
            log.exception("serve.supervision_failed")
            processes.terminate_all()
            raise
    finally:
        if worker is not None:
            worker.stop()
        shutil.rmtree(shared, ignore_errors=True)
    if processes.failed:
        sys.exit(1)


def _config(app: object, **options: object) -> uvicorn.Config:
    return server_config(app, timeout_graceful_shutdown=SHUTDOWN_SECONDS, **options)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + LISTEN_SECONDS
    while True:
        try:
            listener.bind((host, port))
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                reason = f"cannot listen on {host}:{port}: {error.strerror}"
                raise InputInvalid(reason=reason, hint="choose another --port") from error
        time.sleep(LISTEN_PAUSE)
    listener.set_inheritable(True)
    return listener


def _authority(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
