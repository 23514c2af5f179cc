from __future__ import annotations

import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.billing.readers import READERS, read_event
from billingwatch.billing.shapes import ProjectionError

from . import payloads
from .payloads import NOW, Json, charge, event, invoice

OBJECTS = [
    payloads.charge(),
    payloads.ancient_charge(),
    payloads.invoice(lines=payloads.listed({"amount": 5, "period": {"start": NOW, "end": NOW}})),
    payloads.legacy_invoice(charge=payloads.charge()),
    payloads.invoice_payment(),
    payloads.subscription(),
    payloads.dispute(),
    payloads.early_fraud_warning(),
    {**payloads.early_fraud_warning(), "object": "issuer_fraud_record"},
    payloads.refund(),
    payloads.customer(),
    payloads.payment_method(),
    {"id": "pi_1", "object": "payment_intent", "charges": payloads.listed(payloads.charge())},
    {"id": "card_1", "object": "card", "exp_month": 8},
    {"id": "src_1", "object": "source", "type": "card", "card": {}},
]


@pytest.mark.parametrize(
    "inside",
    [
        {"id": "prod_1", "object": "product"},
        {"object": "balance"},
        {"id": "x"},
        {"id": "x", "object": None},
        {"id": "x", "object": ["charge"]},
        {},
    ],
)
def test_objects_that_we_keep_no_table_of_give_no_rows(inside: Json) -> None:
    assert read_event(event("something.happened", inside)) == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"data": None}, "it carries no object"),
        ({"data": {"object": "ch_1"}}, "it carries no object"),
        ({"id": None}, "id is missing"),
        ({"id": 7}, "id is no reference"),
        ({"type": None}, "type is missing"),
        ({"created": None}, "created is missing"),
        ({"created": "2026-09-20T12:00:00.123Z"}, "created is not an integer"),
        ({"created": 10**13}, "created is beyond 253402300799"),
        ({"created": -(10**11)}, "-100000000000 is no time"),
    ],
)
def test_an_event_without_a_readable_envelope_is_refused(broken: Json, reason: str) -> None:
    with pytest.raises(ProjectionError, match=f"^the event cannot be projected: {reason}$"):
        read_event({**event("charge.succeeded", charge()), **broken})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": None}, "id is missing"),
        ({"id": ""}, "id is missing"),
        ({"id": "ch_" + "x" * 253}, "id is longer than 255 characters"),
        ({"amount": None}, "amount is missing"),
        ({"amount": "2000"}, "amount is not an integer"),
        ({"amount": 20.5}, "amount is not an integer"),
        ({"amount": True}, "amount is not an integer"),
        ({"amount": 2**63}, "amount is beyond 9223372036854775807"),
        ({"currency": None}, "currency is missing"),
        ({"currency": 840}, "currency is not text"),
        ({"captured": "yes"}, "captured is not a boolean"),
        ({"created": 10**12}, "created is beyond 253402300799"),
        ({"customer": ["cus_1"]}, "customer is no reference"),
        ({"description": "half\0way"}, "description contains a NUL character"),
        ({"metadata": {"order_id": "\0"}}, "order_id contains a NUL character"),
        ({"failure_code": "\ud800"}, "failure_code contains half a character"),
    ],
)
def test_a_charge_that_cannot_be_stored_is_refused(fields: Json, reason: str) -> None:
    with pytest.raises(ProjectionError, match=f"^the event cannot be projected: {reason}$"):
        read_event(event("charge.succeeded", charge(**fields)))


@pytest.mark.parametrize("amount", ["1e999999999", "NaN", "1" * 25, "½", "", " 1"])
def test_a_decimal_that_is_none_is_refused(amount: str) -> None:
    inside = payloads.subscription("sub_1", payloads.item(price=payloads.price(unit_amount_decimal=amount)))

    with pytest.raises(ProjectionError, match="unit_amount_decimal is not a decimal"):
        read_event(event("customer.subscription.updated", inside))


def test_an_absurd_monthly_revenue_is_refused() -> None:
    inside = payloads.subscription("sub_1", payloads.item(quantity=10**10, price=payloads.price(10**10)))

    with pytest.raises(ProjectionError, match="the monthly amount is beyond what can be stored"):
        read_event(event("customer.subscription.updated", inside))


def test_an_invoice_without_an_id_is_refused_unless_it_is_a_preview() -> None:
    with pytest.raises(ProjectionError, match="id is missing"):
        read_event(event("invoice.updated", invoice(id=None)))


def test_every_reader_meets_garbage_in_this_file() -> None:
    assert {inside["object"] for inside in OBJECTS} == set(READERS)


GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["\0", "\ud800", "x" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "data", "object", "type", "price"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(inside: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    steps = inside.items() if isinstance(inside, dict) else enumerate(inside) if isinstance(inside, list) else ()
    return [path, *(deeper for step, value in steps for deeper in paths(value, (*path, step)))]


@given(st.sampled_from(OBJECTS), st.data())
def test_garbage_anywhere_in_an_object_is_read_or_refused_but_never_breaks_the_reader(inside: Json, data: st.DataObject) -> None:
    whole = event("something.happened", copy.deepcopy(inside))
    *path, last = data.draw(st.sampled_from([path for path in paths(whole) if path]))
    place = whole
    for step in path:
        place = place[step]
    place[last] = data.draw(GARBAGE)

    try:
        rows = read_event(whole)
    except ProjectionError:
        return

    assert all(row.key and row.version for row in rows)
    assert msgspec.json.encode(rows)
