"""Stripe's part: signed POSTs over a few connections, each tried again until the service has answered 2xx."""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import msgspec

from billingwatch.errors import BillingWatchError
from billingwatch.simulate.signing import sign

CONNECTIONS = 8
RETRIES = 20
RETRY_AFTER = 0.5  # seconds, when the service does not say


class DeliveryRefused(BillingWatchError):
    """the service answered a webhook with {status}: {body}"""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as it is registered in Stripe."""

    url: str
    secret: str


def send_all(
    endpoints: Sequence[Endpoint], deliveries: Iterable[tuple[int, bytes]], *, on_sent: Callable[[], None], pace: float = 0
) -> None:
    """Post each (endpoint number, body), `pace` seconds apart; raise DeliveryRefused or OSError when one cannot be delivered."""
    waiting: queue.Queue[tuple[int, bytes] | None] = queue.Queue(maxsize=CONNECTIONS * 2)
    failures: list[Exception] = []

    def work() -> None:
        connections: dict[str, http.client.HTTPConnection] = {}
        while (item := waiting.get()) is not None:
            if failures:
                continue
            try:
                _post(connections, endpoints[item[0]], item[1])
            except (OSError, http.client.HTTPException, DeliveryRefused) as error:
                failures.append(error)
            on_sent()
        for connection in connections.values():
            connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for delivery in deliveries:
        waiting.put(delivery)
        if pace:
            time.sleep(pace)
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _post(connections: dict[str, http.client.HTTPConnection], endpoint: Endpoint, body: bytes) -> None:
    url = urlsplit(endpoint.url)
    connection = connections.setdefault(url.netloc, http.client.HTTPConnection(url.netloc, timeout=30))
    for retries_left in reversed(range(RETRIES)):
        headers = {"Content-Type": "application/json", "Stripe-Signature": sign(body, endpoint.secret, int(time.time()))}
        connection.request("POST", url.path, body=body, headers=headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status < 300:
            return
        if response.status not in {429, 503} or not retries_left:
            raise DeliveryRefused(status=response.status, body=answer.decode(errors="replace"))
        time.sleep(float(response.headers.get("Retry-After") or RETRY_AFTER))
