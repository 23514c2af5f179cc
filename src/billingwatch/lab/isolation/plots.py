"""Plots: a figure over the number of tenants, one line for each arm, drawn as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from billingwatch.errors import InputInvalid
from billingwatch.lab.isolation.arms import ARMS
from billingwatch.lab.isolation.dimension import Measure
from billingwatch.lab.isolation.summary import Value

# Told apart by those who see no colours, too: by their markers.
_LOOKS = {"schema": ("#1b6ca8", "o"), "pool": ("#7fb3d5", "s"), "row": ("#c0562f", "^"), "partitioned": ("#e0a458", "D")}


def plot(path: Path, title: str, measure: Measure, values: Mapping[int, Mapping[str, Value]]) -> None:
    """Draw medians, with the least and the greatest as bars; both axes are logarithmic. InputInvalid without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - not among what the service needs
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.ticker import LogLocator  # noqa: PLC0415
    except ImportError as error:
        raise InputInvalid(reason="plots need matplotlib", hint="pip install matplotlib, or use a checkout: make compare") from error
    with mpl.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for arm, (colour, marker) in _LOOKS.items():
            points = [(tenants, arms[arm]) for tenants, arms in sorted(values.items()) if arm in arms]
            if not points:
                continue
            below = [value.median - value.low for _, value in points]
            above = [value.high - value.median for _, value in points]
            axes.errorbar(
                [tenants for tenants, _ in points],
                [value.median for _, value in points],
                yerr=[below, above],
                label=ARMS[arm].title,
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.4,
                elinewidth=0.8,
                capsize=2,
            )
        axes.set_xscale("log")
        axes.set_yscale("log" if all(value.low > 0 for arms in values.values() for value in arms.values()) else "linear")
        axes.set_xticks(sorted(values), labels=[f"{tenants:,}" for tenants in sorted(values)], minor=False)
        if axes.get_yscale() == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("tenants")
        axes.set_ylabel(f"{measure.unit} ({measure.better} is better)" if measure.better else measure.unit)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.6)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, format="svg", metadata={"Date": None})
