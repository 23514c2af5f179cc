"""Releases to come: this one's `schema/` with revisions that a run adds, and may take away again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from billingwatch.postgres import migrations, revisions
from billingwatch.postgres.revision_file import revision_text


class Change(NamedTuple):
    """What a revision does and how it is taken back, in Python."""

    up: str
    back: str


def new_column(column: str) -> Change:
    """To the table that ingest writes."""
    return Change(f"op.add_column('events', sa.Column('{column}', sa.Text(), nullable=True))", f"op.drop_column('events', '{column}')")


class Releases:
    """Each has one revision of the tenants' line more than the one before it."""

    def __init__(self, root: Path) -> None:
        self._versions = root / "tenant" / "versions"
        self._made: list[Path] = []

    def add(self, change: Change) -> None:
        """One revision more."""
        revision, down = f"lab_{len(self._made) + 1}", migrations.head("tenant")
        self._made.append(self._versions / f"{revision}.py")
        text = revision_text("pre: made for the lab", revision=revision, down=down, up=change.up, back=change.back)
        self._made[-1].write_text(text, encoding="utf-8")
        revisions.forget()

    def drop(self) -> None:
        """One revision less."""
        self._made.pop().unlink()
        revisions.forget()


@contextmanager
def releases_to_come(directory: Path) -> Iterator[Releases]:
    """While the block runs, a copy of `schema/` in `directory` takes its place."""
    root = directory / "schema"
    shutil.copytree(migrations.schema_root(), root, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        with revisions.schema_at(root):
            yield Releases(root)
    finally:
        shutil.rmtree(root)
