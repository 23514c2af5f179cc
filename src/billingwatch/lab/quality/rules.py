"""The plain rules that a first monitor has: fixed numbers, windows by the time of arrival, state in memory, no history of the account.

They are written from the description of the ten rules of the program that this service began as a replacement for, and keep what that
description calls defects: a delivery that comes twice counts twice, retries count as failures, currencies are added up, today so far is
compared with whole days, fields that newer API versions moved are not found. Where the description gives no number, it is the kindest
that is usual.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

HOUR = 3600
DAY = 24 * HOUR

Hit = tuple[str, str, list[str]]
"""A subject, a sentence, and the ids of objects that it is about."""


class Rule(ABC):
    """Sees each delivery when it arrives, and is asked once an hour what time alone shows."""

    detector: ClassVar[str]
    """Which of our detectors has the same purpose."""

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:  # noqa: ARG002 - a rule of time has nothing to see
        """What a delivery shows."""
        return iter(())

    def check(self, at: int) -> Iterator[Hit]:  # noqa: ARG002 - most rules wait for a delivery
        """What the time shows."""
        return iter(())


class _Seeing(Rule):
    @abstractmethod
    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]: ...


class FailureRate(_Seeing):
    """15 % of the charges of an hour failed, of at least 10."""

    detector = "charge_failure_spike"

    def __init__(self) -> None:
        self._charges: deque[tuple[int, bool, str]] = deque()

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        if event["type"] not in {"charge.succeeded", "charge.failed"}:
            return
        self._charges.append((at, event["type"] == "charge.failed", event["data"]["object"]["id"]))
        while self._charges[0][0] < at - HOUR:
            self._charges.popleft()
        failed = [charge for _, failure, charge in self._charges if failure]
        if len(self._charges) >= 10 and len(failed) >= 0.15 * len(self._charges):
            yield "failures", f"{len(failed)} of {len(self._charges)} charges failed within an hour", failed


class SameAmount(_Seeing):
    """The same customer paid the same amount within 5 minutes, by a charge or an invoice; an invoice is known by its charge."""

    detector = "duplicate_charge"

    def __init__(self) -> None:
        self._paid: deque[tuple[int, str, int, str]] = deque()

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        paid = event["data"]["object"]
        if event["type"] == "charge.succeeded":
            charge, amount = paid["id"], paid["amount"]
        elif event["type"] == "invoice.payment_succeeded":
            charge, amount = paid.get("charge") or event["id"], paid["amount_paid"]
        else:
            return
        customer = paid.get("customer")
        if customer is None or amount <= 0:
            return
        while self._paid and self._paid[0][0] < at - 5 * 60:
            self._paid.popleft()
        before = [each for _, who, much, each in self._paid if who == customer and much == amount and each != charge]
        self._paid.append((at, customer, amount, charge))
        if before:
            yield customer, f"{customer} was charged {amount} twice within 5 minutes", [*before, charge]


class DisputeRate(_Seeing):
    """Disputes of any kind are 1 % of a day's charges, of at least 10; a dispute adds to the charges, too."""

    detector = "fraud_spike"

    def __init__(self) -> None:
        self._charges: deque[int] = deque()
        self._disputes: deque[tuple[int, str]] = deque()

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        if event["type"] not in {"charge.succeeded", "charge.dispute.created"}:
            return
        self._charges.append(at)
        if event["type"] == "charge.dispute.created":
            self._disputes.append((at, event["data"]["object"]["id"]))
        while self._charges[0] < at - DAY:
            self._charges.popleft()
        while self._disputes and self._disputes[0][0] < at - DAY:
            self._disputes.popleft()
        if self._disputes and len(self._charges) >= 10 and len(self._disputes) >= 0.01 * len(self._charges):
            yield "disputes", f"{len(self._disputes)} disputes of {len(self._charges)} charges", [each for _, each in self._disputes]


class NegativePayment(_Seeing):
    """An invoice's amount_paid is below zero."""

    detector = "negative_invoice"

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:  # noqa: ARG002 - the time does not matter
        invoice = event["data"]["object"]
        if event["type"] in {"invoice.created", "invoice.paid", "invoice.payment_succeeded"} and invoice["amount_paid"] < 0:
            yield invoice["id"], f"{invoice['id']} paid {invoice['amount_paid']}", [invoice["id"]]


class TodayAgainstWeek(Rule):
    """Today so far is 40 % below the mean of the last 7 days that had payments, in units of all currencies together."""

    detector = "revenue_drop"

    def __init__(self) -> None:
        self._takings: Counter[int] = Counter()

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        if event["type"] == "charge.succeeded":
            self._takings[at // DAY] += event["data"]["object"]["amount"]
        return iter(())

    def check(self, at: int) -> Iterator[Hit]:
        today = at // DAY
        week = [self._takings[day] for day in range(today - 7, today) if self._takings[day]]
        known = min(self._takings, default=today) <= today - 7
        if known and week and self._takings[today] < 0.6 * sum(week) / len(week):
            yield f"revenue of day {today}", f"{self._takings[today]} today, usually {sum(week) // len(week)}", []


class CustomerLapsed(Rule):
    """An active customer's last paid invoice is older than their interval (a month has 30 days) and 3 days; who never paid is not seen."""

    detector = "silent_lapse"

    def __init__(self) -> None:
        self._interval: dict[str, int] = {}
        self._paid: dict[str, int] = {}

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        thing = event["data"]["object"]
        if event["type"] in {"customer.subscription.created", "customer.subscription.updated"} and thing["status"] == "active":
            self._interval[thing["customer"]] = 365 if _first_price(thing)["recurring"]["interval"] == "year" else 30
        elif event["type"] == "customer.subscription.deleted":
            self._interval.pop(thing["customer"], None)
        elif event["type"] in {"invoice.paid", "invoice.payment_succeeded"}:
            self._paid[thing["customer"]] = at
        return iter(())

    def check(self, at: int) -> Iterator[Hit]:
        for customer, days in self._interval.items():
            if customer in self._paid and at > self._paid[customer] + (days + 3) * DAY:
                yield customer, f"{customer} has not paid for {days + 3} days", [customer]


class Lag(_Seeing):
    """An event arrives more than 5 minutes after it was created."""

    detector = "webhook_lag"

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        if at - event["created"] > 5 * 60:
            yield "lag", f"{event['id']} came {at - event['created']} s late", [event["id"]]


class Silence(Rule):
    """Nothing has arrived for 4 hours, during office hours in New York; only after a first event."""

    detector = "webhook_silence"

    def __init__(self) -> None:
        self._last: int | None = None

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:  # noqa: ARG002 - any event will do
        self._last = at
        return iter(())

    def check(self, at: int) -> Iterator[Hit]:
        there = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo("America/New_York"))
        if self._last is not None and 9 <= there.hour < 18 and at - self._last > 4 * HOUR:
            yield "silence", f"nothing for {(at - self._last) // HOUR} hours", []


class PriceGone(_Seeing):
    """A subscription no longer has a price that it had."""

    detector = "plan_downgrade"

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:  # noqa: ARG002 - the time does not matter
        before = (event["data"].get("previous_attributes") or {}).get("items")
        if event["type"] != "customer.subscription.updated" or not before:
            return
        subscription = event["data"]["object"]
        gone = {item["price"]["id"] for item in before["data"]} - {item["price"]["id"] for item in subscription["items"]["data"]}
        if gone:
            yield subscription["id"], f"{subscription['id']} lost {', '.join(sorted(gone))}", [subscription["id"]]


class OtherCurrency(_Seeing):
    """A payment's currency is not the one that most of the customer's payments had, of at least 3; an invoice is a payment, too."""

    detector = "currency_mismatch"

    def __init__(self) -> None:
        self._currencies: dict[str, Counter[str]] = {}

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:  # noqa: ARG002 - the time does not matter
        paid = event["data"]["object"]
        if event["type"] not in {"charge.succeeded", "invoice.payment_succeeded"} or not paid.get("customer"):
            return
        known = self._currencies.setdefault(paid["customer"], Counter())
        usual = known.most_common(1)[0][0] if known.total() >= 3 else None
        known[paid["currency"]] += 1
        if usual is not None and paid["currency"] != usual:
            yield paid["customer"], f"{paid['customer']} paid in {paid['currency']} instead of {usual}", [paid["id"], paid["customer"]]


class TwoInvoices(_Seeing):
    """Two invoice events of one subscription within 26 hours, whichever invoices they are about."""

    detector = "double_invoice"

    def __init__(self) -> None:
        self._invoices: dict[str, deque[tuple[int, str]]] = {}

    def see(self, at: int, event: dict[str, Any]) -> Iterator[Hit]:
        invoice = event["data"]["object"]
        if event["type"] not in {"invoice.created", "invoice.payment_succeeded"} or not invoice.get("subscription"):
            return
        seen = self._invoices.setdefault(invoice["subscription"], deque())
        while seen and seen[0][0] < at - 26 * HOUR:
            seen.popleft()
        seen.append((at, invoice["id"]))
        if len(seen) > 1:
            subscription = invoice["subscription"]
            yield (
                subscription,
                f"{subscription} was invoiced twice within 26 hours",
                [subscription, *dict.fromkeys(each for _, each in seen)],
            )


RULES: tuple[type[Rule], ...] = (
    FailureRate,
    SameAmount,
    DisputeRate,
    NegativePayment,
    TodayAgainstWeek,
    CustomerLapsed,
    Lag,
    Silence,
    PriceGone,
    OtherCurrency,
    TwoInvoices,
)
RULED = frozenset(rule.detector for rule in RULES)


def _first_price(subscription: dict[str, Any]) -> dict[str, Any]:
    price: dict[str, Any] = subscription["items"]["data"][0]["price"]
    return price
