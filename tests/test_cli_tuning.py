"""What the commands for detectors, mutes and backtests make of their arguments, before they ask a database anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from billingwatch.cli.backtest import backtest
from billingwatch.cli.detectors import detectors, read_pairs
from billingwatch.cli.mutes import mutes
from billingwatch.errors import BillingWatchError, InputInvalid


def test_thresholds_are_read_as_numbers_and_what_is_none_is_left_to_be_refused():
    assert read_pairs(("a=3", "b=0.5", "c=low", "d=", "e=null", "f=1e400", "g=NaN", "a=4", " h = 7")) == {
        "a": 4,
        "b": 0.5,
        "c": "low",
        "d": "",
        "e": "null",
        "f": "1e400",
        "g": "NaN",
        "h": 7,
    }


@pytest.mark.parametrize("pair", ["min_cases", "=3", "", "--on"])
def test_what_is_no_pair_is_said(pair: str):
    with pytest.raises(InputInvalid, match="is not KEY=VALUE"):
        read_pairs((pair,))


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (detectors, ["set", "acme", "fraud_spike"], "there is nothing to set"),
        (detectors, ["set", "acme", "no_such", "--on"], "there is no detector `no_such`"),
        (detectors, ["show", "acme", "no_such"], "there is no detector `no_such`"),
        (mutes, ["add", "acme", "--reason", " "], "a mute needs a reason"),
        (mutes, ["add", "acme", "--reason", "x", "--subject", ""], "a mute of no subject covers nothing"),
        (mutes, ["add", "acme", "--reason", "x", "--detector", "no_such"], "there is no detector `no_such`"),
        (backtest, ["acme", "--detector", "no_such"], "there is no detector `no_such`"),
        (backtest, ["acme", "--detector", "fraud_spike", "--since", "soon"], "`since` is a moment like"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_with_a_hint_where_there_is_one(command: object, arguments: list[str], line: str):
    done = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]

    assert isinstance(done.exception, BillingWatchError)
    assert line in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (mutes, ["add", "acme"]),
        (mutes, ["add", "acme", "--reason", "x", "--since", "yesterday"]),
        (mutes, ["remove", "acme", "0"]),
        (mutes, ["remove", "acme", "2147483648"]),
        (backtest, ["acme"]),
    ],
)
def test_an_argument_that_is_missing_or_of_another_kind_is_a_usage_error(command: object, arguments: list[str]):
    assert CliRunner().invoke(command, arguments).exit_code == 2  # type: ignore[arg-type]
