from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time

import pytest

from billingwatch.lab.machine import PROC, cpu_seconds, is_memory_backed, memory, parent_named, this_machine

linux = pytest.mark.skipif(not (PROC / "self/stat").exists(), reason="read from /proc")


@linux
def test_cpu_time_counts_children_that_live_and_those_that_ended():
    spin = "import time\nwhile time.process_time() < 0.3: pass\n"
    script = (
        f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {spin!r}])\n{spin}print(flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()

        used = cpu_seconds(process.pid)

        process.stdin.close()
    assert 0.8 < used < 2.5


@linux
def test_memory_that_nobody_shares_is_the_least_of_the_three():
    found = memory(os.getpid())

    assert 0 < found.private <= found.pss <= found.rss


@linux
def test_a_shared_mapping_is_nobodys_own_even_when_only_one_has_used_it():
    before = memory(os.getpid())
    with mmap.mmap(-1, 40 * 2**20) as shared:
        shared.write(b"x" * len(shared))
        after = memory(os.getpid())

    assert after.rss > before.rss + 35
    assert after.private < before.private + 5


@linux
def test_a_parent_counts_only_when_both_bear_the_name():
    with subprocess.Popen(["sleep", "60"]) as process:
        deadline = time.monotonic() + 5
        while (PROC / str(process.pid) / "comm").read_text().strip() != "sleep" and time.monotonic() < deadline:
            time.sleep(0.01)

        parents = parent_named(process.pid, "sleep"), parent_named(process.pid, "postgres")

        process.kill()
    assert parents == (None, None)


def test_a_process_that_is_not_there_costs_nothing_that_could_be_told():
    assert cpu_seconds(None) is None
    assert memory(None) is None
    assert parent_named(2**22 + 1, "postgres") is None


@linux
def test_a_directory_in_memory_is_known(tmp_path):
    assert is_memory_backed(PROC / "../dev/shm")
    assert this_machine().cores >= 1
