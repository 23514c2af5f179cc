"""The embedded server takes what the machine can spare."""

from __future__ import annotations

from pathlib import Path

import pytest

from billingwatch.postgres.sizing import GB, MB, machine_memory, sized


@pytest.mark.parametrize(
    ("memory", "buffers", "locks"),
    [(512 * MB, "128MB", "256"), (2 * GB, "256MB", "256"), (8 * GB, "1024MB", "1024"), (512 * GB, "2048MB", "1024")],
)
def test_a_small_machine_keeps_its_memory_and_a_large_one_uses_it(memory: int, buffers: str, locks: str) -> None:
    assert sized(memory) == {"shared_buffers": buffers, "max_locks_per_transaction": locks}


@pytest.mark.parametrize("limit", ["max\n", None])
def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path: Path, limit: str | None) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)

    assert machine_memory(tmp_path / "memory.max") == machine_memory(tmp_path / "missing") > 64 * MB


def test_a_container_has_its_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{64 * MB}\n")

    assert machine_memory(tmp_path / "memory.max") == 64 * MB
