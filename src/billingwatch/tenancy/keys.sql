-- insert_key --
INSERT INTO control.api_keys (key_hash, tenant_id, hint, name, scope, expires_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::interval)
RETURNING key_id, expires_at;

-- find_tenant_id --
SELECT tenant_id FROM control.tenants WHERE name = $1;

-- list_keys --
SELECT k.key_id, k.name, k.hint, k.scope, k.created_at, k.expires_at, coalesce(k.expires_at <= clock_timestamp(), false) AS expired,
       k.last_used_at
FROM control.api_keys AS k
WHERE k.tenant_id = $1
ORDER BY k.key_id;

-- delete_key --
DELETE FROM control.api_keys AS k
WHERE k.tenant_id = $1 AND k.key_id = $2
RETURNING k.key_id, k.name, k.hint, k.scope, k.created_at, k.expires_at, coalesce(k.expires_at <= clock_timestamp(), false) AS expired,
          k.last_used_at;
