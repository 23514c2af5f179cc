"""People, their cards, and what things cost them."""

from __future__ import annotations

from random import Random

from billingwatch.simulate.objects.payers import Card, Payer
from billingwatch.simulate.objects.subscriptions import Interval, Price
from billingwatch.simulate.seasons import moment
from billingwatch.simulate.world import World

FIRST_NAMES = (
    "Ada",
    "Ben",
    "Chloe",
    "Dario",
    "Emi",
    "Farah",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kenji",
    "Lena",
    "Mateo",
    "Nadia",
    "Omar",
    "Priya",
)
LAST_NAMES = (
    "Abe",
    "Brown",
    "Costa",
    "Dubois",
    "Evans",
    "Fischer",
    "Garcia",
    "Haas",
    "Ito",
    "Jensen",
    "Kaya",
    "Lopez",
    "Moreau",
    "Novak",
    "Okafor",
)
STREETS = ("High Street", "Station Road", "Mill Lane", "Park Avenue", "Harbour View", "Church Street")
# Currency: where its users live.
CITIES = {
    "usd": (
        ("Austin", "TX", "78701", "US"),
        ("Portland", "OR", "97201", "US"),
        ("Chicago", "IL", "60601", "US"),
        ("Denver", "CO", "80202", "US"),
    ),
    "eur": (
        ("Berlin", None, "10115", "DE"),
        ("Lyon", None, "69001", "FR"),
        ("Utrecht", None, "3511 AB", "NL"),
        ("Porto", None, "4000-123", "PT"),
    ),
    "gbp": (("Leeds", None, "LS1 4AP", "GB"), ("Bristol", None, "BS1 4DJ", "GB")),
    "jpy": (("Osaka", None, "530-0001", "JP"), ("Sapporo", None, "060-0001", "JP")),
}
# Currency: its minor units for one US cent, about.
RATES = {"usd": 1.0, "eur": 0.95, "gbp": 0.8, "jpy": 1.5}
ZERO_DECIMAL = frozenset({"jpy"})
SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}
TAX_PERCENT = {"eur": 19, "gbp": 20}
PLANS = ("Starter", "Team", "Business", "Scale", "Enterprise")
BRANDS = ("visa", "visa", "visa", "mastercard", "mastercard", "amex")
PRICES_CREATED = 1_704_067_200
CARD_MONTHS = 49  # a card is good for less than so many more
CREDIT = 0.6  # share of cards; the others are debit cards
MONTHS_FOR_A_YEAR = 10  # a year costs as much as so many months


def new_card(world: World, rng: Random, created: int, country: str) -> Card:
    brand = rng.choice(BRANDS)
    year, month = divmod(moment(created).year * 12 + moment(created).month - 1 + rng.randrange(1, CARD_MONTHS), 12)
    return Card(
        payment_method=world.new_id("pm_1", created, rng),
        brand=brand,
        last4=f"{rng.randrange(10_000):04d}",
        fingerprint=world.short_id("", rng) + "Fp",
        country=country,
        funding="credit" if rng.random() < CREDIT else "debit",
        exp_month=month + 1,
        exp_year=year,
    )


def new_payer(world: World, rng: Random, created: int, currency: str, *, guest: bool = False) -> Payer:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    city, state, postal_code, country = rng.choice(CITIES[currency])
    return Payer(
        customer=None if guest else world.short_id("cus_", rng),
        name=f"{first} {last}",
        email=f"{first}.{last}{rng.randrange(1000)}@example.com".lower(),
        line1=f"{rng.randrange(1, 240)} {rng.choice(STREETS)}",
        city=city,
        state=state,
        postal_code=postal_code,
        country=country,
        card=new_card(world, rng, created, country),
    )


def pick_currency(rng: Random, currencies: tuple[str, ...]) -> str:
    """Choose a currency, each half as likely as the one before it."""
    return rng.choices(currencies, weights=[0.5**place for place in range(len(currencies))])[0]


def local(cents: int, currency: str) -> int:
    """Say a price in US cents in another currency's minor units, rounded as price tags are."""
    return cents if currency == "usd" else max(100, round(cents * RATES[currency] / 100) * 100)


def usual_payment(world: World, currency: str) -> int:
    """Give the median of what things cost here."""
    costs = sorted((*world.profile.items, *world.profile.prices))
    return local(costs[len(costs) // 2], currency)


def price(world: World, tier: int, currency: str, interval: Interval) -> Price:
    """Look up one price of the account's list; the same tier always has the same id."""
    rng = world.rng("price", tier, currency, interval)
    months = 1 if interval == "month" else MONTHS_FOR_A_YEAR
    return Price(
        id=world.new_id("price_1", PRICES_CREATED, rng),
        product=world.short_id("prod_", world.rng("product", tier)),
        nickname=PLANS[tier % len(PLANS)],
        unit_amount=local(world.profile.prices[tier], currency) * months,
        currency=currency,
        interval=interval,
        created=PRICES_CREATED,
    )


def display(amount: int, currency: str) -> str:
    """Write an amount as Stripe's descriptions do."""
    symbol = SYMBOLS[currency]
    return f"{symbol}{amount}" if currency in ZERO_DECIMAL else f"{symbol}{amount / 100:.2f}"
