"""Money: integer minor units beside their currency. Two currencies are never added up.

Which currencies have no decimals, or three, is Stripe's word (docs.stripe.com/currencies), not ISO's: what counts is how Stripe writes amounts.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from billingwatch.errors import BillingWatchError

ZERO_DECIMAL = frozenset({"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"})
THREE_DECIMAL = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
# They have no decimals any more, yet Stripe still writes two, always 00.
WRITTEN_WITH_TWO = frozenset({"isk", "ugx"})

CurrencyT = TypeVar("CurrencyT", bound=str)


class CurrenciesMixed(BillingWatchError):
    """{left} and {right} cannot be added up"""


class Money(msgspec.Struct, Generic[CurrencyT], frozen=True, kw_only=True):
    """An amount in minor units. `Money[Literal["usd"]]` and `Money[Literal["eur"]]` do not even type-check in one sum."""

    amount: int
    currency: CurrencyT
    """ISO 4217, lower case."""

    def __add__(self, other: Money[CurrencyT]) -> Money[CurrencyT]:
        if other.currency != self.currency:
            raise CurrenciesMixed(left=str(self), right=str(other))
        return Money(amount=self.amount + other.amount, currency=self.currency)

    def __str__(self) -> str:
        return format_money(self.amount, self.currency)


def decimals(currency: str) -> int:
    """Count the digits after the point in the amounts that Stripe writes."""
    code = currency.lower()
    if code in ZERO_DECIMAL:
        return 0
    return 3 if code in THREE_DECIMAL else 2


def format_money(amount: int, currency: str) -> str:
    """Write minor units for people: `1,234.50 USD`, `500 JPY`, `5.000 KWD`."""
    places = decimals(currency)
    major, minor = divmod(abs(amount), 10**places)
    shown = f"{major:,}" if places == 0 or (currency.lower() in WRITTEN_WITH_TWO and minor == 0) else f"{major:,}.{minor:0{places}d}"
    return f"{'-' if amount < 0 else ''}{shown} {currency.upper()}"
