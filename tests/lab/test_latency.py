from __future__ import annotations

from billingwatch.lab.latency import Latency, percentile, summarize


def test_a_percentile_is_a_value_that_was_measured():
    ordered = [float(value) for value in range(1, 101)]

    found = [percentile(ordered, share) for share in (0.0, 0.5, 0.99, 1.0)]

    assert found == [1, 50, 99, 100]


def test_the_percentile_of_few_values_is_not_below_its_share():
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2
    assert percentile([1.0, 2.0], 0.5) == 1
    assert percentile([1.0, 2.0], 0.99) == 2


def test_a_summary_is_in_milliseconds_whatever_the_order():
    assert summarize([0.3, 0.001, 0.002]) == Latency(p50=2.0, p99=300.0, max=300.0)


def test_nothing_has_no_latency():
    assert summarize([]) is None
