"""Kinds of business, each a handful of rates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from billingwatch.simulate.objects.shapes import Shape


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What an account sells, to how many, and how steadily."""

    name: str
    customers: int
    """Saved customers on the first day."""
    purchases_per_day: float
    """One-off purchases on an average day, besides renewals."""
    currencies: tuple[str, ...] = ("usd",)
    """The main one first; each further one is half as common as the one before."""
    shape: Shape = "current"
    subscribed: float = 0.0
    """Share of customers with a subscription."""
    month_start: float = 0.35
    """Share of subscriptions that renew on the first of the month."""
    yearly: float = 0.1
    """Share of subscriptions paid by the year."""
    guests: float = 0.0
    """Share of purchases by people without a customer."""
    order_ids: bool = False
    """Whether one-off purchases name their order in the metadata; without it, chance must not let a customer buy twice in minutes."""
    weekend: float = 0.6
    """Purchases on a Saturday or Sunday relative to a weekday."""
    growth: float = 0.06
    """Customers gained per month, beyond those that leave; negative: lost."""
    drift: float = 0.08
    """How far an account's growth may lie from that of its kind, in either direction."""
    holiday: float = 0.6
    """Purchases on a public holiday relative to another day."""
    month_end: float = 1.0
    """Purchases in the last days of a month relative to other days."""
    sales_per_month: float = 0.0
    """Days on which everything is cheaper, and two or three times as many people buy."""
    wobbles_per_week: float = 0.6
    """Times at which an issuer refuses somewhat more than it should for some minutes, and nobody need know."""
    churn: float = 0.03
    """Share of subscriptions cancelled per month."""
    changes: float = 0.05
    """Share of subscriptions that change price or quantity per month."""
    trials: float = 0.0
    """Share of sign-ups that begin with two weeks for nothing."""
    pauses: float = 0.01
    """Share of subscriptions per month whose collection is paused for a while."""
    declines: float = 0.04
    """Share of attempts refused on an ordinary day."""
    refunds: float = 0.03
    disputes: float = 0.0015
    """Share of charges disputed; early fraud warnings are half as common."""
    habits_per_week: float = 3.0
    """How often customers do what looks like a mistake and is none; see habits."""
    prices: tuple[int, ...] = (1900, 4900, 9900, 24900)
    """Monthly prices in US cents, cheapest first."""
    items: tuple[int, ...] = (1000, 2500, 5000)
    """Prices of one-off items in US cents."""


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(name="tiny", customers=30, purchases_per_day=0.6, subscribed=0.8, trials=0.2, habits_per_week=0.5, prices=(900, 1900)),
            Profile(name="saas", customers=320, purchases_per_day=8, currencies=("usd", "eur"), subscribed=0.9, trials=0.3),
            Profile(
                name="shop",
                customers=500,
                purchases_per_day=60,
                subscribed=0.05,
                guests=0.3,
                order_ids=True,
                weekend=1.3,
                holiday=1.2,
                sales_per_month=1.0,
                refunds=0.05,
                disputes=0.002,
                habits_per_week=6,
                items=(900, 1499, 1999, 2499, 2999, 3999, 4999, 5999, 7999, 12900, 19900),
            ),
            Profile(
                name="marketplace",
                customers=400,
                purchases_per_day=45,
                currencies=("usd", "eur", "gbp", "jpy"),
                subscribed=0.35,
                guests=0.15,
                order_ids=True,
                weekend=0.9,
                sales_per_month=0.5,
                items=(1500, 3500, 4900, 8900, 15000, 29900),
            ),
            Profile(
                name="b2b",
                customers=140,
                purchases_per_day=4,
                currencies=("eur", "usd"),
                subscribed=0.95,
                month_start=0.6,
                yearly=0.25,
                weekend=0.08,
                holiday=0.15,
                month_end=2.2,
                churn=0.015,
                changes=0.1,
                prices=(9900, 29900, 79900, 199900),
                items=(25000, 50000, 120000),
            ),
            Profile(
                name="volume",
                customers=2000,
                purchases_per_day=300,
                currencies=("usd", "eur", "gbp"),
                subscribed=0.3,
                guests=0.2,
                order_ids=True,
                sales_per_month=0.5,
                habits_per_week=20,
            ),
        )
    }
)
