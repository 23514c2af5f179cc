-- secret_key_check --
SELECT value FROM control.fleet_settings WHERE name = 'secret_key_check';

-- secret_key_sample --
-- A ciphertext that the key must decrypt: the check, or before there is one, the newest signing secret.
SELECT coalesce(
    (SELECT convert_to(value, 'UTF8') FROM control.fleet_settings WHERE name = 'secret_key_check'),
    (SELECT ciphertext FROM control.signing_secrets ORDER BY secret_id DESC LIMIT 1)
);

-- insert_secret_key_check --
INSERT INTO control.fleet_settings (name, value) VALUES ('secret_key_check', $1)
ON CONFLICT ON CONSTRAINT fleet_settings_pkey DO NOTHING;

-- put_setting --
INSERT INTO control.fleet_settings (name, value) VALUES ($1, $2)
ON CONFLICT ON CONSTRAINT fleet_settings_pkey DO UPDATE SET value = excluded.value, updated_at = now();

-- insert_setting --
INSERT INTO control.fleet_settings (name, value) VALUES ($1, $2)
ON CONFLICT ON CONSTRAINT fleet_settings_pkey DO NOTHING;

-- share_setting --
-- A change of the value waits until the transaction that read it has ended.
SELECT value FROM control.fleet_settings WHERE name = $1 FOR SHARE;

-- lock_setting --
SELECT value FROM control.fleet_settings WHERE name = $1 FOR UPDATE;

-- list_settings --
SELECT name, value FROM control.fleet_settings WHERE name <> 'secret_key_check';
