"""The attacking process: it reads one order from stdin, prints a line when the attack runs, and is killed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import uvloop

from billingwatch.lab.faults.http_attacks import endless_header, flood, idle, slow_bodies
from billingwatch.lab.faults.scene import AttackOrder
from billingwatch.lab.faults.sql_attacks import heavy_queries, hold_snapshot, notify

Begun = Callable[[], None]

ATTACKS: Mapping[str, Callable[[AttackOrder, Begun], Awaitable[None]]] = {
    "endless-header": endless_header,
    "slow-bodies": slow_bodies,
    "idle": idle,
    "unsigned": lambda order, begun: flood(order, begun, connections=6, method="POST", body=b"{}"),
    "bad-key": lambda order, begun: flood(order, begun, connections=6, path="/events", key="bw_no_such_key"),
    "reads": lambda order, begun: flood(order, begun, connections=40),
    "notify": notify,
    "snapshot": hold_snapshot,
    "queries": heavy_queries,
}


def main() -> None:
    order = msgspec.json.decode(sys.stdin.readline(), type=AttackOrder)

    async def run() -> None:
        await ATTACKS[order.kind](order, _print_begun)

    uvloop.run(run())


def _print_begun() -> None:
    sys.stdout.write("begun\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
