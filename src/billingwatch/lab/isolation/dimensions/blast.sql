-- read --
-- No WHERE: whatever the session sees. Counted are charges of the history, which bear their tenant's number; what was posted since does not.
SELECT count(*) FILTER (WHERE starts_with(charge_id, 'ch_lab_') AND NOT starts_with(coalesce(customer_id, ''), $1)) FROM charges;

-- write --
WITH written AS (UPDATE charges SET disputed = disputed RETURNING charge_id, customer_id)
SELECT count(*) FILTER (WHERE starts_with(charge_id, 'ch_lab_') AND NOT starts_with(coalesce(customer_id, ''), $1)) FROM written;

-- claim --
SELECT set_config('search_path', '{schema}', false), set_config('billingwatch.tenant', '{tenant}', false)
