"""Revisions: which way leads from one to another, and which of them this release's code works with.

Expand, then contract: a release adds with a `pre` revision what the next one may rely on, and takes away with a `post` revision what
the previous one no longer uses. So the service runs while the fleet is migrated, with some tenants at the new head and some one behind it;
processes of the previous release run on beside it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from billingwatch.postgres import migrations
from billingwatch.postgres.migrations import Plane, render, scripts_of
from billingwatch.postgres.shared_plane import SharedPlane

if TYPE_CHECKING:  # not needed to run, and slow to import
    from alembic.operations import Operations
    from alembic.script import Script

OLDEST = "0005"
"""The oldest tenant revision that this release's statements work with: the one before the head, or the head if the code needs what it adds.

A test holds it to these two and processes events at it; a tenant that is older is refused until it is migrated, and its events are recorded."""


class RevisionUnknown(Exception):
    """No revision of that name is in this release, or none before it."""


class OnlineStep(msgspec.Struct, frozen=True, kw_only=True):
    """A function of a revision's module that Alembic is to run."""

    path: Path
    function: Literal["upgrade", "downgrade"]

    def bound_to(self, operations: Operations) -> Callable[[], None]:
        """The function with an `op` of its own: Alembic's is one for the whole process, and several tenants are migrated at once."""
        spec = importlib.util.spec_from_file_location(f"revision_{self.path.stem}", self.path)
        if spec is None or spec.loader is None:
            raise ImportError(str(self.path))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.op = operations  # type: ignore[attr-defined]
        bound: Callable[[], None] = getattr(module, self.function)
        return bound


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Leads a schema on to `to`: by `text`, or `online`."""

    to: str
    text: str = ""
    online: OnlineStep | None = None


@cache
def way_up(plane: Plane, revision: str) -> tuple[Step, ...]:
    """From `revision` to head; what lies between two online revisions is one step. RevisionUnknown."""
    if not migrations.known_revision(plane, revision):
        raise RevisionUnknown(revision)
    steps: list[Step] = []
    together: list[Script] = []

    def close() -> None:
        if together:
            steps.append(Step(to=together[-1].revision, text=render(*(each.module.upgrade for each in together))))
            together.clear()

    for script in reversed(list(scripts_of(plane).iterate_revisions("head", revision))):
        if _is_online(script):
            close()
            steps.append(Step(to=script.revision, online=OnlineStep(path=Path(script.path), function="upgrade")))
        else:
            together.append(script)
    close()
    return tuple(steps)


@cache
def way_back(plane: Plane) -> Step:
    """From head to the revision before it. RevisionUnknown when there is none."""
    last, *before = scripts_of(plane).iterate_revisions("head", "base")
    if not before:
        raise RevisionUnknown(plane)
    if _is_online(last):
        return Step(to=before[0].revision, online=OnlineStep(path=Path(last.path), function="downgrade"))
    return Step(to=before[0].revision, text=render(last.module.downgrade))


@cache
def shared_way(revision: str, plane: SharedPlane, *, back: bool = False) -> Step:
    """From `revision` to head, or back from head by one, for tables that all tenants share. LookupError where there is none."""
    scripts = scripts_of("tenant")
    if back:
        last, *before = scripts.iterate_revisions("head", "base")
        if revision != last.revision or not before:
            message = f"the tenants' schema is at {revision}, and only {last.revision} can be taken back"
            raise LookupError(message)
        path, to = [last], before[0].revision
    else:
        path, to = list(reversed(list(scripts.iterate_revisions("head", revision)))), migrations.head("tenant")
    if online := [script.revision for script in path if _is_online(script)]:
        message = f"revision {online[0]} cannot be rendered for tables that all tenants share"
        raise LookupError(message)
    return Step(to=to, text=render(*(script.module.downgrade if back else script.module.upgrade for script in path), shared=plane))


def outdated(revision: str) -> bool:
    """Whether a tenant schema is too old for this release's code. One that a newer release has migrated is not: that only added."""
    line = migrations.lineage("tenant")
    return revision in line[: line.index(OLDEST)]


def _is_online(script: Script) -> bool:
    return bool(getattr(script.module, "online", False))


@contextmanager
def schema_at(root: Path) -> Iterator[None]:
    """While the block runs, `root` takes the place of `schema/`: a release with other revisions, for benchmarks and tests."""
    before, migrations.other_root = migrations.other_root, root
    forget()
    try:
        yield
    finally:
        migrations.other_root = before
        forget()


def forget() -> None:
    """Read `schema/` anew."""
    for function in (*vars(migrations).values(), way_up, way_back, shared_way):
        if hasattr(function, "cache_clear"):
            function.cache_clear()
