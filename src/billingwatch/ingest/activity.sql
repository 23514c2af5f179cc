-- limit_lock_wait --
-- A tenant that is being removed has its row locked; what is not written now is written in a few seconds.
SELECT set_config('lock_timeout', $1, true);

-- add_activity --
-- In the order of tenants, so that two processes that write the same tenants cannot deadlock.
-- Removed tenants are left out.
INSERT INTO control.ingest_activity AS known (tenant_id, refused, last_refused_at, last_refusal, ignored, last_ignored_at)
SELECT added.tenant_id, added.refused, added.last_refused_at, added.last_refusal, added.ignored, added.last_ignored_at
FROM unnest($1::integer[], $2::bigint[], $3::timestamptz[], $4::text[], $5::bigint[], $6::timestamptz[])
     AS added (tenant_id, refused, last_refused_at, last_refusal, ignored, last_ignored_at)
WHERE EXISTS (SELECT FROM control.tenants AS t WHERE t.tenant_id = added.tenant_id)
ORDER BY added.tenant_id
ON CONFLICT (tenant_id) DO UPDATE SET
    refused = known.refused + excluded.refused,
    last_refusal = CASE WHEN known.last_refused_at > excluded.last_refused_at OR excluded.last_refused_at IS NULL
                        THEN known.last_refusal ELSE excluded.last_refusal END,
    last_refused_at = greatest(known.last_refused_at, excluded.last_refused_at),
    ignored = known.ignored + excluded.ignored,
    last_ignored_at = greatest(known.last_ignored_at, excluded.last_ignored_at);
