"""All scenarios, in the order in which they run, by family."""

from __future__ import annotations

from collections.abc import Mapping

from billingwatch.lab.faults import analysts, clock, disk, logs, network, postgres, processes, strangers
from billingwatch.lab.faults.scenario import Scenario

FAMILIES: Mapping[str, tuple[Scenario, ...]] = {
    # Neighbours that need the same service share it.
    "postgres": postgres.SCENARIOS,
    "network": network.SCENARIOS,
    "strangers": strangers.SCENARIOS,
    "analysts": analysts.SCENARIOS,
    "processes": processes.SCENARIOS,
    "clock": clock.SCENARIOS,
    "logs": logs.SCENARIOS,
    "disk": disk.SCENARIOS,
}

SCENARIOS: Mapping[str, Scenario] = {each.name: each for family in FAMILIES.values() for each in family}


def family_of(scenario: Scenario) -> str:
    return next(name for name, family in FAMILIES.items() if scenario in family)
