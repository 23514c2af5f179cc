"""All scenarios, in the order in which they run, by family."""

from __future__ import annotations

from collections.abc import Mapping

from billingwatch.lab.faults import analysts, clock, disk, logs, network, postgres, processes, strangers
from billingwatch.lab.faults.scenario import Scenario

FAMILIES: Mapping[str, tuple[Scenario, ...]] = {
    "processes": processes.SCENARIOS,
    "postgres": postgres.SCENARIOS,
    "logs": logs.SCENARIOS,
    "disk": disk.SCENARIOS,
    "network": network.SCENARIOS,
    "clock": clock.SCENARIOS,
    "strangers": strangers.SCENARIOS,
    "analysts": analysts.SCENARIOS,
}

SCENARIOS: Mapping[str, Scenario] = {each.name: each for family in FAMILIES.values() for each in family}


def family_of(scenario: Scenario) -> str:
    return next(name for name, family in FAMILIES.items() if scenario in family)
