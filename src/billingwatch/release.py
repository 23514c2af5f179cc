"""Which release this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The installed version; 0 where the package is not installed."""
    try:
        return version("billingwatch-server")
    except PackageNotFoundError:
        return "0"
