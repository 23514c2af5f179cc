from __future__ import annotations

import pytest

from billingwatch.billing.money import CurrenciesMixed, Money, format_money


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (1999, "usd", "19.99 USD"),
        (123_456_789, "eur", "1,234,567.89 EUR"),
        (5, "gbp", "0.05 GBP"),
        (-5000, "usd", "-50.00 USD"),
        (-1, "usd", "-0.01 USD"),
        (500, "jpy", "500 JPY"),
        (1_000_000, "KRW", "1,000,000 KRW"),
        (5000, "kwd", "5.000 KWD"),
        (-5, "bhd", "-0.005 BHD"),
        (500, "isk", "5 ISK"),
        (500, "ugx", "5 UGX"),
        (0, "usd", "0.00 USD"),
    ],
)
def test_money_is_written_with_the_decimals_that_stripe_gives_its_currency(amount: int, currency: str, shown: str) -> None:
    assert format_money(amount, currency) == shown


def test_amounts_of_one_currency_add_up() -> None:
    total = Money(amount=1999, currency="usd") + Money(amount=1, currency="usd")

    assert total == Money(amount=2000, currency="usd")
    assert str(total) == "20.00 USD"


def test_amounts_of_two_currencies_do_not_add_up() -> None:
    dollars, euros = Money(amount=1, currency="usd"), Money(amount=1, currency="eur")

    with pytest.raises(CurrenciesMixed, match=r"0\.01 USD and 0\.01 EUR cannot be added up"):
        dollars + euros
