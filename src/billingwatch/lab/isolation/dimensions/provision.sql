-- claim --
UPDATE control.tenants SET name = $2, webhook_token_hash = $3 WHERE name = $1 RETURNING tenant_id;

-- insert_api_key --
INSERT INTO control.api_keys (key_hash, tenant_id, hint) VALUES ($1, $2, $3);

-- announce_change --
SELECT pg_notify('billingwatch_tenants', $1::integer::text);

-- guests --
SELECT name FROM control.tenants WHERE name NOT LIKE 'bench-%';
