"""Objects: every Stripe object as the few facts that vary, rendered whole as an API version of Stripe would send it."""
