CREATE VIEW subscriptions_active AS
SELECT s.subscription_id,
       s.account,
       s.customer_id,
       c.email AS customer_email,
       s.status,
       s.mrr,
       s.currency,
       s.discounted,
       s.collection_paused,
       s.created_at AS started_at,
       s.trial_end_at,
       s.period_end_at,
       s.cancel_at_period_end,
       s.cancel_at
FROM subscriptions AS s
LEFT JOIN customers AS c ON c.customer_id = s.customer_id
WHERE s.status IN ('active', 'trialing', 'past_due');

COMMENT ON VIEW subscriptions_active IS 'One row per subscription that is active, trialing or past_due. Add up mrr per currency only, and without trialing if you count what is paid.';
COMMENT ON COLUMN subscriptions_active.subscription_id IS 'sub_…';
COMMENT ON COLUMN subscriptions_active.account IS 'Connected account (acct_…) that sells it; null: your own';
COMMENT ON COLUMN subscriptions_active.customer_id IS 'cus_…';
COMMENT ON COLUMN subscriptions_active.customer_email IS 'Null while the customer has not arrived';
COMMENT ON COLUMN subscriptions_active.status IS 'active, trialing or past_due';
COMMENT ON COLUMN subscriptions_active.mrr IS 'Minor units per month, before discounts and tax, without metered items; null when the items do not tell, as with tiers';
COMMENT ON COLUMN subscriptions_active.currency IS 'ISO 4217, lower case';
COMMENT ON COLUMN subscriptions_active.discounted IS 'A discount applies, so less than mrr is paid';
COMMENT ON COLUMN subscriptions_active.collection_paused IS 'Payment collection is paused, although the status says active';
COMMENT ON COLUMN subscriptions_active.started_at IS 'When it was created in Stripe';
COMMENT ON COLUMN subscriptions_active.trial_end_at IS 'End of its trial, also of a past one';
COMMENT ON COLUMN subscriptions_active.period_end_at IS 'End of the current period; the earliest over its items';
COMMENT ON COLUMN subscriptions_active.cancel_at_period_end IS 'Ends at the end of the period instead of renewing';
COMMENT ON COLUMN subscriptions_active.cancel_at IS 'When it is set to end; null: it renews';
