from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from billingwatch.billing.versions import Stage, rank, version


def at(occurred_at: int, *, stage: Stage = Stage.LIVE, state: int = 0, event_id: str = "evt_1") -> str:
    return version(stage=stage, occurred_at=occurred_at, rank=rank(first=False, state=state), event_id=event_id)


def test_a_final_snapshot_beats_a_later_one_that_is_not() -> None:
    assert at(100, stage=Stage.FINAL) > at(200, state=9, event_id="evt_9")


def test_of_two_final_snapshots_the_later_wins() -> None:
    assert at(200, stage=Stage.FINAL) > at(100, stage=Stage.FINAL, state=9)


def test_a_later_snapshot_beats_one_of_a_higher_state() -> None:
    assert at(101) > at(100, state=9, event_id="evt_9")


def test_within_a_second_the_higher_state_wins_and_then_the_event_id() -> None:
    assert at(100, state=2, event_id="evt_1") > at(100, state=1, event_id="evt_9")
    assert at(100, event_id="evt_2") > at(100, event_id="evt_1")


def test_within_a_second_the_snapshot_at_creation_is_the_oldest() -> None:
    assert rank(first=False, state=0) > rank(first=True, state=99, progress=10**18)


def test_versions_of_absurd_times_still_sort() -> None:
    ordered = [at(-5), at(1), at(999), at(10**9), at(10**11), at(10**15)]

    assert all(left < right for left, right in pairwise(ordered))
    assert {len(text) for text in ordered} == {len(at(1))}


@given(
    st.lists(
        st.tuples(st.sampled_from(Stage), st.integers(0, 10**12 - 1), st.integers(0, 99), st.integers(0, 10**16 - 1)),
        min_size=2,
        max_size=2,
    )
)
def test_bytes_sort_as_the_parts_do(parts: list[tuple[Stage, int, int, int]]) -> None:
    texts = [version(stage=s, occurred_at=t, rank=rank(first=False, state=n, progress=p), event_id="evt").encode() for s, t, n, p in parts]

    assert (texts[0] < texts[1]) == (parts[0] < parts[1])
