"""The demo: what an operator, Stripe and a tenant's people do, in a minute, against a real service."""
