-- begin_rotation --
SELECT pg_try_advisory_lock(1112099160, 1);

-- end_rotation --
SELECT pg_advisory_unlock(1112099160, 1);

-- share_key --
SELECT pg_advisory_xact_lock_shared(1112099160, 0);

-- hold_key --
SELECT pg_advisory_lock(1112099160, 0);

-- free_key --
SELECT pg_advisory_unlock(1112099160, 0);

-- lock_secrets --
SELECT s.secret_id, s.ciphertext, t.name AS tenant
FROM control.signing_secrets AS s
JOIN control.tenants AS t ON t.tenant_id = s.tenant_id
WHERE s.secret_id > $1
ORDER BY s.secret_id
LIMIT $2
FOR NO KEY UPDATE OF s;

-- replace_secrets --
UPDATE control.signing_secrets AS s
SET ciphertext = fresh.ciphertext
FROM unnest($1::integer[], $2::bytea[]) AS fresh (secret_id, ciphertext)
WHERE s.secret_id = fresh.secret_id;
