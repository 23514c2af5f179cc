-- find_tenants --
-- Find for each array position by the one value that is given there, each through its index: $1 hashes of webhook tokens,
-- $2 hashes of API keys, $3 ids, $4 names. `number` is the position, from 1 on; a position without a tenant has no row.
-- `valid_for` is how long the token or the key is accepted, in seconds by this server's clock; null: without end.
-- `OFFSET 0` keeps the inner query as it is: index look-ups for each position, whatever the planner expects of the arrays.
SELECT wanted.number, found.tenant_id, found.name, found.schema_name, found.revision, found.mode, found.status, found.rate_limit,
       found.paused_at, found.resumed_at, found.key_id, found.key_name, found.key_hint, found.key_scope, found.valid_for,
       found.ciphertexts, found.detector_settings, found.mutes
FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::text[]) WITH ORDINALITY AS wanted (token_hash, key_hash, tenant_id, name, number)
CROSS JOIN LATERAL (
    SELECT t.tenant_id, t.name, t.schema_name, t.revision, t.mode, t.status, t.rate_limit, t.paused_at, t.resumed_at,
           k.key_id, k.name AS key_name, k.hint AS key_hint, k.scope AS key_scope,
           extract(epoch FROM coalesce(
               k.expires_at, CASE WHEN t.previous_token_hash = wanted.token_hash THEN t.previous_token_until END
           ) - clock_timestamp())::float8 AS valid_for,
           ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts,
           (SELECT jsonb_agg(jsonb_build_object('detector', d.detector, 'active', d.active, 'thresholds', d.thresholds::text) ORDER BY d.detector)
            FROM control.detector_settings AS d WHERE d.tenant_id = t.tenant_id) AS detector_settings,
           (SELECT jsonb_agg(jsonb_build_object('mute_id', m.mute_id, 'detector', m.detector, 'subject', m.subject, 'since', m.since,
                                                'until', m.until, 'reason', m.reason) ORDER BY m.mute_id)
            FROM control.mutes AS m WHERE m.tenant_id = t.tenant_id) AS mutes
    FROM control.tenants AS t
    LEFT JOIN control.api_keys AS k ON k.key_hash = wanted.key_hash
    WHERE t.tenant_id = coalesce(
        (SELECT w.tenant_id FROM control.tenants AS w WHERE w.webhook_token_hash = wanted.token_hash),
        (SELECT p.tenant_id FROM control.tenants AS p
         WHERE p.previous_token_hash = wanted.token_hash AND p.previous_token_until > clock_timestamp()),
        (SELECT a.tenant_id FROM control.api_keys AS a
         WHERE a.key_hash = wanted.key_hash AND (a.expires_at IS NULL OR a.expires_at > clock_timestamp())),
        wanted.tenant_id,
        (SELECT n.tenant_id FROM control.tenants AS n WHERE n.name = wanted.name)
    )
    OFFSET 0
) AS found;
