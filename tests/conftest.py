"""Fixtures: a real PostgreSQL for the session, a template database with the control plane, a clone of it for each test."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg
import hypothesis
import pytest
from cryptography.fernet import Fernet

from billingwatch.ingest.envelope import read_envelope
from billingwatch.ingest.record import Delivery
from billingwatch.postgres import migrations, revisions
from billingwatch.postgres.connections import ControlConnection, TenantConnection, discard, open_connection
from billingwatch.postgres.embedded import EmbeddedServer
from billingwatch.settings import Settings
from billingwatch.tenancy.isolation import Isolation
from billingwatch.tenancy.lanes import Lane
from billingwatch.tenancy.migrate import ensure_control_plane
from billingwatch.tenancy.provision import Provisioned, provision
from billingwatch.tenancy.registry import load_tenant
from billingwatch.tenancy.scope import tenant_scope
from billingwatch.tenancy.sealing import Seal
from billingwatch.tenancy.tenants import Tenant

SECRET = "whsec_test_secret_of_the_first_tenant"
UNSAFE_AND_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ISOLATION = "TEST_ISOLATION"  # environment: runs the database tests in this isolation alone
PARTITIONS = "TEST_PARTITIONS"  # environment: of the shared tables of row isolation
SHARED = "TESTS_OF_BILLINGWATCH"  # environment of a run's worker processes: the data directory of the server that they share
ROOM = 2 * 1024**3  # bytes; a clone is 8 MB, and a test has one at a time

REVISION = '''"""pre: made for a test."""
from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None
{declarations}

def upgrade() -> None:
    {up}


def downgrade() -> None:
    {down_sql}
'''

hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")  # a machine may be busy

ProvisionTenant = Callable[..., Awaitable[tuple[Tenant, Provisioned]]]
Connect = Callable[[], Awaitable[asyncpg.Connection]]
OpenLane = Callable[..., Lane]
MakeDelivery = Callable[..., Delivery]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_isolations: what it says holds in schema and in row isolation")
    config.addinivalue_line("markers", "schema_isolation: it is about schemas of tenants")
    config.addinivalue_line("markers", "row_isolation: it is about the schema that all tenants share")
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="billingwatch-tests-", dir=_fast_directory())


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SHARED), ignore_errors=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "isolation" not in metafunc.fixturenames:
        return
    given = os.environ.get(ISOLATION)
    if metafunc.definition.get_closest_marker("row_isolation"):
        kinds = ["row"]
    elif given:
        kinds = [given]
    elif metafunc.definition.get_closest_marker("both_isolations"):
        kinds = ["schema", "row"]
    else:
        return
    metafunc.parametrize("isolation", kinds, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(ISOLATION) == "row":
        for item in items:
            if item.get_closest_marker("schema_isolation") and not item.get_closest_marker("row_isolation"):
                item.add_marker(pytest.mark.skip(reason="about schemas of tenants"))


def _fast_directory() -> str | None:
    # In memory, where there is enough of it and programs may run from it, cloning a database takes a tenth of the time.
    memory = "/dev/shm"  # noqa: S108 - mkdtemp makes a directory of our own in it
    if not os.access(memory, os.W_OK):
        return None
    found = os.statvfs(memory)
    roomy = found.f_bavail * found.f_frsize > ROOM
    return memory if roomy and not found.f_flag & os.ST_NOEXEC else None


class Server:
    """The PostgreSQL that the tests run on: embedded, or the one that BILLINGWATCH_TEST_DATABASE_URL names (its role must be superuser)."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def dsn_for(self, database: str) -> str:
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    given = os.environ.get("BILLINGWATCH_TEST_DATABASE_URL")
    if given:
        yield Server(given)
        return
    # One server for all workers of a run: the last of them to release it stops it.
    data_dir = Path(os.environ[SHARED])
    data_dir.chmod(0o711)  # root's server runs as somebody else, who must get through
    binaries = os.environ.get("BILLINGWATCH_POSTGRES_BIN")
    embedded = EmbeddedServer.acquire(data_dir, binaries=Path(binaries) if binaries else None, settings=UNSAFE_AND_FAST)
    yield Server(embedded.dsn)
    embedded.release()


@pytest.fixture(scope="module")
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """In which isolation the test's database keeps its tenants; `both_isolations` runs a test in each."""
    kind: Isolation = getattr(request, "param", "schema")
    return kind


@pytest.fixture(scope="session")
def templates(server: Server) -> Iterator[Callable[[Isolation], str]]:
    """Databases with the control plane, to be cloned: one for each isolation that is asked for."""
    made: dict[Isolation, str] = {}
    shared: list[str] = []

    async def create(name: str, kind: Isolation) -> None:
        admin = await asyncpg.connect(server.dsn)
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        await admin.close()
        connection = await open_connection(server.dsn_for(name), "tests")
        await ensure_control_plane(ControlConnection(connection), isolation=kind, partitions=int(os.environ.get(PARTITIONS, "0")))
        shared.extend(row[0] for row in await connection.fetch("SELECT schema_name FROM control.isolation WHERE kind = 'row'"))
        await connection.close()

    def template_of(kind: Isolation) -> str:
        if kind not in made:
            name = f"template_{uuid.uuid4().hex[:12]}"
            asyncio.run(create(name, kind))
            made[kind] = name
        return made[kind]

    yield template_of
    for name in made.values():
        asyncio.run(_drop(server, name))
    asyncio.run(_drop_roles(server, [f"{name}{suffix}" for name in shared for suffix in ("", "_recorder", "_analysts", "_reader")]))


@pytest.fixture
def template(templates: Callable[[Isolation], str], isolation: Isolation) -> str:
    """The database that the test's own is a clone of."""
    return templates(isolation)


async def _drop(server: Server, name: str) -> None:
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.close()


async def _drop_roles(server: Server, names: list[str]) -> None:
    admin = await asyncpg.connect(server.dsn)
    for name in names:
        await admin.execute(f"DROP ROLE IF EXISTS {name}")
    await admin.close()


@pytest.fixture
async def database(server: Server, template: str) -> AsyncIterator[str]:
    """DSN of a database of the test's own, with the control plane and no tenant. Afterwards `public` must be empty."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    await admin.close()
    yield server.dsn_for(name)
    check = await asyncpg.connect(server.dsn_for(name))
    leaked = await check.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    await check.close()
    await _drop(server, name)
    assert leaked == []


@pytest.fixture
async def connect(database: str) -> AsyncIterator[Connect]:
    """Connections to the test's database, closed after it."""
    opened: list[asyncpg.Connection] = []

    async def make() -> asyncpg.Connection:
        opened.append(await open_connection(database, "tests"))
        return opened[-1]

    yield make
    for connection in opened:
        await discard(connection)


@pytest.fixture
async def open_lane(database: str) -> AsyncIterator[OpenLane]:
    """Lanes to the test's database, closed after it."""
    opened: list[Lane] = []

    def make(name: str = "tests", **options: int) -> Lane:
        opened.append(Lane(database, name, **options))
        return opened[-1]

    yield make
    for lane in opened:
        await lane.close()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def make_delivery() -> MakeDelivery:
    """A delivery of an event to a tenant, as if its signature had been verified."""

    def make(tenant: Tenant, event_id: str = "evt_1", *, body: str | bytes | None = None, received_at: datetime = NOW) -> Delivery:
        payload = body or f'{{"id": "{event_id}", "object": "event", "type": "ping", "created": 1700000000, "livemode": true}}'
        envelope = read_envelope(payload.encode() if isinstance(payload, str) else payload)
        return Delivery(
            tenant=tenant,
            envelope=envelope,
            disposition=envelope.disposition(tenant.mode),
            payload=payload,
            received_at=received_at,
            signed_at=received_at,
        )

    return make


@pytest.fixture
def secret_key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture
def seal(secret_key: str) -> Seal:
    return Seal([secret_key])


@pytest.fixture
def settings(database: str, isolation: Isolation, secret_key: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, database_url=database, isolation=isolation, secret_key=secret_key)


@pytest.fixture
async def control(database: str) -> AsyncIterator[ControlConnection]:
    connection = await open_connection(database, "tests control")
    yield ControlConnection(connection)
    await connection.close()


@pytest.fixture
def provision_tenant(control: ControlConnection, seal: Seal) -> ProvisionTenant:
    """Provision a tenant: (tenant, what provisioning printed)."""

    async def make(name: str = "acme", *, secrets: tuple[str, ...] = (SECRET,), **options: object) -> tuple[Tenant, Provisioned]:
        provisioned = await provision(control, seal, name, secrets=secrets, **options)
        return await load_tenant(control, seal, name), provisioned

    return make


@pytest.fixture
async def tenant(provision_tenant: ProvisionTenant) -> Tenant:
    return (await provision_tenant())[0]


@pytest.fixture
async def tenant_connection(database: str, tenant: Tenant) -> AsyncIterator[TenantConnection]:
    """Inside the scope of a freshly provisioned tenant."""
    connection = await open_connection(database, "tests tenant")
    async with tenant_scope(connection, tenant) as scoped:
        yield scoped
    await connection.close()


class Road:
    """A connection to the database that a test can cut, mend, freeze and thaw; `dsn` leads over it."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        found = dict(parse_qsl(parts.query))
        self._host, self._port = found.get("host") or parts.hostname, int(found.get("port") or parts.port or 5432)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._parts = parts
        self._at = 0
        self._moving = asyncio.Event()
        self._moving.set()

    @property
    def dsn(self) -> str:
        who = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{who}@127.0.0.1:{self._at}", query=""))

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._travel, "127.0.0.1", self._at)
        self._at = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in list(self._open)), return_exceptions=True)
            self._server = None

    def freeze(self) -> None:
        """Keep every connection open and pass nothing on, as a server that is stopped."""
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()

    async def _travel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await (
            asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            if self._host.startswith("/")
            else asyncio.open_connection(self._host, self._port)
        )
        ends = {writer, back}
        self._open |= ends

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    await self._moving.wait()
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        await asyncio.gather(carry(reader, back), carry(there, writer))
        self._open -= ends


@pytest.fixture
async def road(database) -> AsyncIterator[Road]:
    road = Road(database)
    await road.mend()
    yield road
    road.thaw()
    await road.cut()


class Release:
    """The next release: this one's schema/ with more in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, plane: str, sql: str, *, back: str = "SELECT") -> str:
        """A revision that runs `sql`; return its name."""
        return self.write(plane, f"op.execute({sql!r})", f"op.execute({back!r})")

    def write(self, plane: str, up: str, back: str, *, declarations: str = "") -> str:
        """A revision of Python; return its name."""
        down = migrations.head(plane)
        revision = f"{int(down) + 1:04d}"
        text = REVISION.format(revision=revision, down=down, up=up, down_sql=back, declarations=declarations)
        (self.root / plane / "versions" / f"{revision}_test.py").write_text(text)
        revisions.forget()
        return revision

    def add_view(self, name: str, sql: str) -> None:
        (self.root / "views" / f"{name}.sql").write_text(sql)
        revisions.forget()


@pytest.fixture
def release(control: ControlConnection, tmp_path: Path) -> Iterator[Release]:
    """Made after the database, which is of this release."""
    root = tmp_path / "schema"
    shutil.copytree(migrations.schema_root(), root, ignore=shutil.ignore_patterns("__pycache__"))
    with revisions.schema_at(root):
        yield Release(root)
