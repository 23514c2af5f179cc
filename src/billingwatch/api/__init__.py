"""HTTP: the webhook for Stripe, the REST API for the tenant's people, health and metrics for the operator."""
