-- insert_tenant --
-- In the schema of all tenants, where there is one, whose revision must stay what it is until this is committed.
INSERT INTO control.tenants (name, schema_name, mode, revision, views_digest, webhook_token_hash, rate_limit)
SELECT $1, coalesce(i.schema_name, $2), $3, coalesce(i.revision, $4), coalesce(i.views_digest, $5), $6, $7
FROM control.isolation AS i
FOR SHARE
RETURNING tenant_id, schema_name;

-- insert_secret --
INSERT INTO control.signing_secrets (tenant_id, ciphertext) VALUES ($1, $2) RETURNING secret_id, created_at;

-- insert_api_key --
INSERT INTO control.api_keys (key_hash, tenant_id, hint) VALUES ($1, $2, $3);

-- list_tenants --
SELECT t.tenant_id, t.name, t.schema_name, t.mode, t.status, t.revision, t.views_digest, t.rate_limit, t.created_at,
       (SELECT count(*) FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id) AS secrets,
       (SELECT count(*) FROM control.pending_events AS p WHERE p.tenant_id = t.tenant_id) AS pending,
       (SELECT count(*) FROM control.dead_letters AS d WHERE d.tenant_id = t.tenant_id) AS dead_letters
FROM control.tenants AS t
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
