-- read --
-- No WHERE: whatever the session sees.
SELECT count(*) FILTER (WHERE NOT starts_with(coalesce(customer_id, ''), $1)) FROM charges;

-- write --
UPDATE charges SET disputed = disputed RETURNING coalesce(customer_id, '') AS customer_id;

-- claim --
SELECT set_config('search_path', '{schema}', false), set_config('billingwatch.tenant', '{tenant}', false)
