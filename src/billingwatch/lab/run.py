"""One run: a fleet on a stage, phases of load against a server, and what each phase cost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy

import asyncpg

from billingwatch.lab.choice import Choice
from billingwatch.lab.figures import Cost, Figure, Held, Options, Report
from billingwatch.lab.fleet import Fleet, provision_fleet
from billingwatch.lab.latency import Latency
from billingwatch.lab.load import OK, Outcome, Phase
from billingwatch.lab.load_process import LoadProcess
from billingwatch.lab.machine import busy_seconds, cores, cpu_seconds, is_memory_backed, memory, parent_named, this_machine
from billingwatch.lab.server import ServerFailed, ServerProcess
from billingwatch.lab.stage import Stage
from billingwatch.lab.verify import Check
from billingwatch.postgres.statements import load_statements
from billingwatch.tenancy.sealing import open_seal

sql = load_statements(__file__, "run.sql")

Say = Callable[[str], None]
"""Tells the person who waits what goes on."""

SWEEP_SECONDS = 600  # at most; a sweep ends with its last tenant
SAY_EVERY = 100  # tenants
TAKEN_MAX = 0.1  # share of all cores, beyond which a run says that it was not alone


class Bill:
    """The events that a phase's cost is spread over, and the CPU seconds that posting them took."""

    def __init__(self) -> None:
        self.events = 0
        self.load = 0.0

    def add(self, outcome: Outcome) -> Outcome:
        self.events += outcome.acked
        self.load += outcome.cpu_seconds
        return outcome


class Run:
    """Keeps the books: seeds, costs, remarks."""

    def __init__(self, stage: Stage, options: Options, say: Say) -> None:
        self.stage = stage
        self.options = options
        self.say = say
        self.costs: list[Cost] = []
        self.remarks: list[str] = []
        self.postgres_version = ""
        self._postmaster: int | None = None
        self._seed = options.seed * 1000
        if is_memory_backed(stage.directory):
            self.remarks.append(
                f"{stage.directory} is in memory, so a durable commit costs nothing here: set TMPDIR to a directory on a disk"
            )

    def provision(self, count: int) -> Fleet:
        """Provision the tenants, clean up behind that, and write back what it made dirty."""
        return asyncio.run(self._provision(count))

    async def _provision(self, count: int) -> Fleet:
        began = time.monotonic()

        def made(done: int) -> None:
            if done % SAY_EVERY == 0 or done == count:
                self.say(f"provisioned {done:,} of {count:,} tenants, {(time.monotonic() - began) / done * 1000:.1f} ms each")

        async with self.stage.control() as control, self.stage.control() as second:
            fleet = await provision_fleet((control, second), open_seal(self.stage.settings), count, made)
            await control.execute(sql["vacuum"])
            with suppress(asyncpg.InsufficientPrivilegeError):
                await control.execute(sql["checkpoint"])
        await self._meet_server()
        return fleet

    async def _meet_server(self) -> None:
        async with self.stage.control() as control:
            self._postmaster = parent_named(control.get_server_pid(), "postgres")
            self.postgres_version = await control.fetchval(sql["version"])

    def again(self, options: Options) -> Run:
        """Books for other options, over the same tenants; the server may have been started anew since."""
        run = copy(self)
        run.options, run.costs, run.remarks = options, [], []
        run._seed = options.seed * 1000  # noqa: SLF001 - one of its own kind
        asyncio.run(run._meet_server())  # noqa: SLF001
        return run

    def next_seed(self) -> int:
        """A seed that no other phase of this run has, so that all events differ."""
        self._seed += 1
        return self._seed

    def phase(
        self,
        server: ServerProcess,
        seconds: float,
        *,
        choice: Choice | None = None,
        rate: float | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> Phase:
        """A phase against `server`, tenants drawn as the options say unless `choice` does."""
        return Phase(
            port=server.port,
            seconds=seconds,
            seed=self.next_seed(),
            choice=choice or ("zipf" if self.options.zipf else "uniform"),
            connections=self.options.connections,
            rate=rate,
            first=first,
            last=last,
        )

    def post(self, name: str, load: LoadProcess, server: ServerProcess, phase: Phase) -> Outcome:
        """Run a phase, and book what it cost."""
        load.prepare(phase)
        with self.booked(name, server) as bill:
            load.start()
            return bill.add(load.finish())

    def sweep(self, load: LoadProcess, server: ServerProcess) -> Outcome:
        """One event for each tenant, while connections and caches are cold."""
        return self.post("first event of each tenant", load, server, self.phase(server, SWEEP_SECONDS, choice="sweep"))

    @contextmanager
    def booked(self, name: str, server: ServerProcess | None = None) -> Iterator[Bill]:
        """Book what the block costs, over the events that it puts on the bill."""
        bill = Bill()
        began = time.monotonic()
        before = self._spent(server)
        yield bill
        seconds = time.monotonic() - began
        busy, service, postgres = (
            None if earlier is None or now is None else now - earlier for earlier, now in zip(before, self._spent(server), strict=True)
        )
        if server is not None and not bill.events:
            raise ServerFailed(reason=f"it acknowledged nothing in the phase `{name}`:\n{server.last_words()}")
        others = None if busy is None or postgres is None else max(busy - (service or 0) - postgres - bill.load, 0)
        self.costs.append(
            Cost(phase=name, events=bill.events, seconds=seconds, service=service, postgres=postgres, load=bill.load, others=others)
        )

    def _spent(self, server: ServerProcess | None) -> tuple[float | None, float | None, float | None]:
        return busy_seconds(), None if server is None else cpu_seconds(server.pid), cpu_seconds(self._postmaster)

    def memory(self, service: ServerProcess) -> list[Held]:
        """What the service and each of its backends hold."""
        return asyncio.run(self._memory(service))

    async def _memory(self, service: ServerProcess) -> list[Held]:
        async with self.stage.control() as control:
            rows = await control.fetch(sql["backends"])
        backends = [Held(process=f"postgres: {row['application_name']}", memory=memory(row["pid"])) for row in rows]
        return [Held(process="service", memory=memory(service.pid)), *backends]

    def report(
        self,
        bench: str,
        *,
        figures: list[Figure],
        latencies: dict[str, Latency | None],
        memory: list[Held],
        checks: list[Check],
        outcomes: list[Outcome],
        stored: int,
    ) -> Report:
        """Close the books."""
        statuses: Counter[int] = Counter()
        for outcome in outcomes:
            statuses.update(outcome.statuses)
        if refused := statuses.total() - statuses[OK]:
            self.remarks.append(
                f"{refused:,} deliveries were not acknowledged: {', '.join(f'{times:,} × {status}' for status, times in statuses.items())}"
            )
        seconds = sum(cost.seconds for cost in self.costs)
        taken = sum(cost.others or 0 for cost in self.costs) / (seconds * cores())
        if taken > TAKEN_MAX:
            self.remarks.append(f"other programs, or the host, had {taken:.0%} of the CPU meanwhile: the figures are too low, and uneven")
        if unposted := sum(outcome.unposted for outcome in outcomes):
            self.remarks.append(f"{unposted:,} events were due and never posted, because no connection was free")
        return Report(
            bench=bench,
            machine=this_machine(),
            postgres=self.postgres_version,
            options=self.options,
            acked=sum(outcome.acked for outcome in outcomes),
            stored=stored,
            statuses=dict(statuses),
            figures=figures,
            latencies=latencies,
            costs=self.costs,
            memory=memory,
            checks=checks,
            remarks=self.remarks,
        )
