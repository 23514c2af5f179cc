-- find_tenant --
-- Find by the one parameter that is given, each through its index: $1 hash of a webhook token, $2 hash of an API key, $3 id, $4 name.
-- `valid_for` is how long the token or the key is accepted, in seconds by this server's clock; null: without end.
SELECT t.tenant_id, t.name, t.schema_name, t.revision, t.mode, t.status, t.rate_limit, t.paused_at, t.resumed_at,
       k.key_id, k.name AS key_name, k.hint AS key_hint, k.scope AS key_scope,
       extract(epoch FROM coalesce(k.expires_at, CASE WHEN t.previous_token_hash = $1 THEN t.previous_token_until END) - clock_timestamp())::float8
           AS valid_for,
       ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts,
       (SELECT jsonb_agg(jsonb_build_object('detector', d.detector, 'active', d.active, 'thresholds', d.thresholds::text) ORDER BY d.detector)
        FROM control.detector_settings AS d WHERE d.tenant_id = t.tenant_id) AS detector_settings,
       (SELECT jsonb_agg(jsonb_build_object('mute_id', m.mute_id, 'detector', m.detector, 'subject', m.subject, 'since', m.since,
                                            'until', m.until, 'reason', m.reason) ORDER BY m.mute_id)
        FROM control.mutes AS m WHERE m.tenant_id = t.tenant_id) AS mutes
FROM control.tenants AS t
LEFT JOIN control.api_keys AS k ON k.key_hash = $2
WHERE t.tenant_id = coalesce(
    (SELECT w.tenant_id FROM control.tenants AS w WHERE w.webhook_token_hash = $1),
    (SELECT p.tenant_id FROM control.tenants AS p WHERE p.previous_token_hash = $1 AND p.previous_token_until > clock_timestamp()),
    (SELECT a.tenant_id FROM control.api_keys AS a WHERE a.key_hash = $2 AND (a.expires_at IS NULL OR a.expires_at > clock_timestamp())),
    $3,
    (SELECT n.tenant_id FROM control.tenants AS n WHERE n.name = $4)
);
