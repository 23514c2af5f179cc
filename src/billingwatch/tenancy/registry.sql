-- by_webhook_token --
SELECT t.tenant_id, t.name, t.schema_name, t.mode, t.status, t.rate_limit,
       ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts
FROM control.tenants AS t
WHERE t.webhook_token_hash = $1;

-- by_api_key --
SELECT t.tenant_id, t.name, t.schema_name, t.mode, t.status, t.rate_limit,
       ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts
FROM control.tenants AS t
WHERE t.tenant_id = (SELECT k.tenant_id FROM control.api_keys AS k WHERE k.key_hash = $1);

-- by_tenant_id --
SELECT t.tenant_id, t.name, t.schema_name, t.mode, t.status, t.rate_limit,
       ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts
FROM control.tenants AS t
WHERE t.tenant_id = $1;

-- by_name --
SELECT t.tenant_id, t.name, t.schema_name, t.mode, t.status, t.rate_limit,
       ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts
FROM control.tenants AS t
WHERE t.name = $1;
