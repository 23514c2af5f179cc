"""Bodies for load: unique `charge.succeeded` events, cut from one stencil."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

import msgspec

from billingwatch.simulate.objects.payers import Card, Payer
from billingwatch.simulate.objects.payments import Charge
from billingwatch.simulate.objects.shapes import TAILS, Shape, event, second, tail

STEP = 130_321_000_000_189  # odd and no multiple of 31, so that it walks through all 62**8 tails before one comes again
# These stand in the stencil for what differs.
TAIL = "~~~~~~~~"
CREATED = 1_111_111_111


def charge_event_payloads(
    count: int, *, seed: int, shape: Shape = "current", livemode: bool = True, created: int = 1_767_225_600, seconds: int = 0
) -> Iterator[bytes]:
    """Give `count` bodies of about 3.8 KB, ready to be signed: event, charge, payment intent, customer and card differ in each.

    Their `created` is spread over `seconds`. One costs a few microseconds. Each seed has ids of its own, so several processes may
    post to one tenant.
    """
    rng = Random(f"{seed}/payloads")
    middle = f"{second(created)}{tail(rng.randrange(TAILS))}WZ{TAIL}"
    charge = Charge(
        id=f"ch_3{middle}",
        payment_intent=f"pi_3{middle}",
        created=CREATED,
        payer=Payer(customer=f"cus_{middle[-14:]}", card=Card(payment_method=f"pm_1{middle}", fingerprint=f"{middle[5:13]}{TAIL}")),
        description="Order",
        metadata={"order_id": TAIL},
    )
    rendered = charge.render(shape, livemode=livemode)
    stencil = msgspec.json.encode(event(f"evt_1{middle}", "charge.succeeded", rendered, created=CREATED, shape=shape, livemode=livemode))
    pieces = re.split(rb"(%b|%d)" % (TAIL.encode(), CREATED), msgspec.json.format(stencil, indent=2))
    tails = [place for place, piece in enumerate(pieces) if piece == TAIL.encode()]
    times = [place for place, piece in enumerate(pieces) if piece == b"%d" % CREATED]
    number = rng.randrange(TAILS)
    for done in range(count):
        number = (number + STEP) % TAILS
        name, when = tail(number).encode(), b"%d" % (created + done * seconds // count)
        for place in tails:
            pieces[place] = name
        for place in times:
            pieces[place] = when
        yield b"".join(pieces)
