"""Simulate: seeded Stripe accounts whose event streams are as whole and as messy as real ones, with labelled incidents.

It knows Stripe and nothing of ours, so that it cannot share a mistake with the code it tests. A seed gives the same bytes always; each
subject draws from a generator of its own, so that an incident changes what it touches and leaves the rest of the stream as it was.

    stream        simulate(), files                      signing, payloads   what a webhook's sender needs
    deliveries    when each event arrives, with troubles cards               how cards end and are replaced
    incidents/    what goes wrong, with labels           profiles            kinds of business
    business      an ordinary account's days             habits              what looks like a mistake and is none
    subscribers   the life of a subscription             billing             invoices, collected and tried again
    payments      attempts, refunds, disputes            people, seasons     who buys, and when
    world         the agenda, and what was sent          objects/            each Stripe object in every API shape
    rhythm        the true rates: what could be known
"""
