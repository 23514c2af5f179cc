-- find_tenant --
-- By whichever is given, each through its index: $1 hash of a webhook token, $2 hash of an API key, $3 id, $4 name.
SELECT t.tenant_id, t.name, t.schema_name, t.revision, t.mode, t.status, t.rate_limit,
       ARRAY(SELECT s.ciphertext FROM control.signing_secrets AS s WHERE s.tenant_id = t.tenant_id ORDER BY s.secret_id DESC) AS ciphertexts,
       (SELECT jsonb_agg(jsonb_build_object('detector', d.detector, 'active', d.active, 'thresholds', d.thresholds::text) ORDER BY d.detector)
        FROM control.detector_settings AS d WHERE d.tenant_id = t.tenant_id) AS detector_settings,
       (SELECT jsonb_agg(jsonb_build_object('mute_id', m.mute_id, 'detector', m.detector, 'subject', m.subject, 'since', m.since,
                                            'until', m.until, 'reason', m.reason) ORDER BY m.mute_id)
        FROM control.mutes AS m WHERE m.tenant_id = t.tenant_id) AS mutes
FROM control.tenants AS t
WHERE t.tenant_id = coalesce(
    (SELECT w.tenant_id FROM control.tenants AS w WHERE w.webhook_token_hash = $1),
    (SELECT k.tenant_id FROM control.api_keys AS k WHERE k.key_hash = $2),
    $3,
    (SELECT n.tenant_id FROM control.tenants AS n WHERE n.name = $4)
);
