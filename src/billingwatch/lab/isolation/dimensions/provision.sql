-- claim --
UPDATE control.tenants SET name = $2, webhook_token_hash = $3 WHERE name = $1 RETURNING tenant_id;

-- insert_api_key --
INSERT INTO control.api_keys (key_hash, tenant_id, hint) VALUES ($1, $2, $3);

-- guests --
SELECT name FROM control.tenants WHERE name NOT LIKE 'bench-%';
