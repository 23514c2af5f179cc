from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from billingwatch.lab.choice import ZIPF_EXPONENT, choose, zipf_weights


def test_a_sweep_chooses_each_tenant_once():
    chosen = list(choose("sweep", 100, seed=1))

    assert sorted(chosen) == list(range(100))
    assert chosen != sorted(chosen)


@pytest.mark.parametrize("choice", ["uniform", "zipf", "sweep"])
def test_a_seed_chooses_the_same_tenants_always(choice):
    first, again, other = (list(islice(choose(choice, 50, seed=seed), 40)) for seed in (7, 7, 8))

    assert first == again
    assert first != other


def test_uniform_tenants_come_equally_often():
    chosen = Counter(islice(choose("uniform", 10, seed=1), 20_000))

    assert all(1800 < times < 2200 for times in chosen.values())


def test_zipf_tenants_come_as_often_as_their_rank_says():
    weights = zipf_weights(1000, ZIPF_EXPONENT)
    shares = [weight / sum(weights) for weight in weights]

    chosen = Counter(islice(choose("zipf", 1000, seed=1), 50_000))

    by_rank = [times / 50_000 for _, times in chosen.most_common()]
    assert by_rank[0] == pytest.approx(shares[0], rel=0.05)
    assert by_rank[9] == pytest.approx(shares[9], rel=0.2)
    assert sum(by_rank[:100]) == pytest.approx(sum(shares[:100]), rel=0.03)
    assert shares[0] == pytest.approx(0.18, abs=0.005)


def test_the_busiest_tenant_of_two_seeds_is_not_the_same():
    busiest = {Counter(islice(choose("zipf", 100, seed=seed), 5000)).most_common(1)[0][0] for seed in range(5)}

    assert len(busiest) > 1
