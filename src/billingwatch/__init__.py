"""BillingWatch watches many Stripe accounts and says within seconds when billing goes wrong."""
