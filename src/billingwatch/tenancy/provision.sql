-- insert_tenant --
-- In the schema of all tenants, where there is one, whose revision must stay what it is until this is committed.
INSERT INTO control.tenants (name, schema_name, mode, revision, views_digest, webhook_token_hash, rate_limit)
SELECT $1, coalesce(i.schema_name, $2), $3, coalesce(i.revision, $4), coalesce(i.views_digest, $5), $6, $7
FROM control.isolation AS i
FOR SHARE
RETURNING tenant_id, schema_name;

-- insert_secret --
INSERT INTO control.signing_secrets (tenant_id, ciphertext) VALUES ($1, $2) RETURNING secret_id, created_at;

-- list_tenants --
SELECT t.tenant_id, t.name, t.schema_name, t.mode, t.status, t.revision, t.views_digest, t.rate_limit, t.created_at,
       (SELECT count(*) FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id) AS secrets,
       (SELECT count(*) FROM control.pending_events AS p WHERE p.tenant_id = t.tenant_id) AS pending,
       (SELECT count(*) FROM control.dead_letters AS d WHERE d.tenant_id = t.tenant_id) AS dead_letters,
       (SELECT count(*) FROM control.api_keys AS k WHERE k.tenant_id = t.tenant_id) AS api_keys,
       CASE WHEN t.status = 'paused' THEN t.paused_at END AS paused_at,
       CASE WHEN t.previous_token_until > clock_timestamp() THEN t.previous_token_until END AS previous_url_until,
       coalesce(a.refused, 0) AS refused, a.last_refused_at, a.last_refusal, coalesce(a.ignored, 0) AS ignored, a.last_ignored_at
FROM control.tenants AS t
LEFT JOIN control.ingest_activity AS a ON a.tenant_id = t.tenant_id
WHERE $1::text IS NULL OR t.name = $1
ORDER BY t.name;

-- list_secrets --
SELECT s.secret_id, s.created_at
FROM control.signing_secrets AS s
WHERE s.tenant_id = $1
ORDER BY s.secret_id;

-- delete_secret --
DELETE FROM control.signing_secrets WHERE tenant_id = $1 AND secret_id = $2;

-- lock_tenant --
-- Of two operators adding a second secret at once, one waits for the other's count.
SELECT FROM control.tenants WHERE name = $1 FOR NO KEY UPDATE;
