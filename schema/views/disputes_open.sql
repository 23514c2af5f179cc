CREATE VIEW disputes_open AS
SELECT d.dispute_id,
       d.account,
       d.kind,
       d.status,
       d.status IN ('needs_response', 'warning_needs_response') AS needs_response,
       d.evidence_due_at,
       d.reason,
       d.amount,
       d.currency,
       d.created_at AS opened_at,
       d.charge_id,
       c.customer_id,
       c.created_at AS charged_at
FROM disputes AS d
LEFT JOIN charges AS c ON c.charge_id = d.charge_id
WHERE d.kind IN ('dispute', 'inquiry')
  AND d.status IN ('warning_needs_response', 'warning_under_review', 'needs_response', 'under_review');

COMMENT ON VIEW disputes_open IS 'One row per dispute or inquiry that is not decided. Early fraud warnings are not here, they have no amount, status or deadline: see disputes where kind = early_fraud_warning.';
COMMENT ON COLUMN disputes_open.dispute_id IS 'dp_… (du_…)';
COMMENT ON COLUMN disputes_open.account IS 'Connected account (acct_…) of the charge; null: your own';
COMMENT ON COLUMN disputes_open.kind IS 'dispute: the money is withdrawn; inquiry: the issuer asks first, nothing is withdrawn yet';
COMMENT ON COLUMN disputes_open.status IS 'Stripe''s status';
COMMENT ON COLUMN disputes_open.needs_response IS 'True while evidence is waited for; false while it is under review';
COMMENT ON COLUMN disputes_open.evidence_due_at IS 'Evidence must be in by then';
COMMENT ON COLUMN disputes_open.reason IS 'Stripe''s reason, such as fraudulent or product_not_received';
COMMENT ON COLUMN disputes_open.amount IS 'Disputed, minor units of currency; may differ from the charge';
COMMENT ON COLUMN disputes_open.currency IS 'ISO 4217, lower case; may differ from the charge';
COMMENT ON COLUMN disputes_open.opened_at IS 'When Stripe opened it';
COMMENT ON COLUMN disputes_open.charge_id IS 'ch_… or py_…; its row in charges may not have arrived';
COMMENT ON COLUMN disputes_open.customer_id IS 'Customer of the charge (cus_…); null for guests and while the charge has not arrived';
COMMENT ON COLUMN disputes_open.charged_at IS 'When the charge was made; null while it has not arrived';
