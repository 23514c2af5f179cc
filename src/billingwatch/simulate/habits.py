"""What customers do that looks like a billing mistake and is none."""

from __future__ import annotations

from functools import partial
from random import Random

from billingwatch.simulate.objects.payers import Customer
from billingwatch.simulate.payments import checkout
from billingwatch.simulate.people import local
from billingwatch.simulate.seasons import DAY, HOUR, arrivals
from billingwatch.simulate.world import World

WEEK = 7 * DAY


def take_up_habits(world: World) -> None:
    rate = world.profile.habits_per_week / WEEK if world.customers else 0.0
    for when in arrivals(world.rng("habits"), world.start, world.end, rate):
        world.at(when, partial(_indulge, world))


def _indulge(world: World, when: int) -> None:
    rng = world.rng("habit", when)
    # Of those of the first day: who else joins must not change who is drawn.
    customer, habit = world.customers[rng.randrange(world.profile.customers)], rng.choice((buy_the_same_again, buy_two_seats))
    habit(world, customer, when, rng)


def buy_the_same_again(world: World, customer: Customer, when: int, rng: Random) -> None:
    """Buy an item, and hours later one more of it."""
    amount = local(rng.choice(world.profile.items), customer.currency)
    later = when + rng.randrange(2 * HOUR, 9 * HOUR)
    orders = [f"{rng.randrange(10**6, 10**7)}" if world.profile.order_ids else None for _ in range(2)]
    checkout(world, customer.payer, amount, customer.currency, when, rng, order_id=orders[0])
    again = world.rng("habit", when, "again")
    world.at(later, lambda at: checkout(world, customer.payer, amount, customer.currency, at, again, order_id=orders[1]))


def buy_two_seats(world: World, customer: Customer, when: int, rng: Random) -> None:
    """Buy a seat for a colleague minutes after one's own; each is an order of its own."""
    amount = local(rng.choice(world.profile.items), customer.currency)
    first = rng.randrange(10**6, 10**7 - 10)
    colleague = world.rng("habit", when, "colleague")
    later = when + rng.randrange(120, 280)
    checkout(world, customer.payer, amount, customer.currency, when, rng, order_id=str(first), pause=5)
    world.at(
        later,
        lambda at: checkout(
            world, customer.payer, amount, customer.currency, at, colleague, order_id=str(first + rng.randrange(1, 9)), pause=5
        ),
    )
