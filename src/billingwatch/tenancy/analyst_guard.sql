-- claim --
-- Of several processes one checks at a time. The key is that of `analysts.lock`: while an operator creates or
-- revokes an analyst, none does.
SELECT pg_try_advisory_xact_lock(hashtextextended('billingwatch analysts', 0));

-- analysts --
-- A superuser's settings that a plain role cannot set are left alone.
SELECT a.role_name, a.tenant_id, t.schema_name, a.verifier,
       pg_has_role(current_user, r.oid, 'USAGE') AS is_member,
       (SELECT s.rolsuper FROM pg_roles AS s WHERE s.rolname = current_user) AS is_superuser,
       EXISTS (SELECT FROM pg_db_role_setting AS d WHERE d.setrole = r.oid AND d.setdatabase <> 0) AS set_elsewhere,
       ARRAY(
           SELECT c.setting
           FROM pg_db_role_setting AS d, unnest(d.setconfig) AS c (setting)
           LEFT JOIN pg_settings AS p ON p.name = split_part(c.setting, '=', 1)
           WHERE d.setrole = r.oid AND d.setdatabase = 0 AND p.context IS DISTINCT FROM 'superuser'
       ) AS settings
FROM control.analysts AS a
JOIN control.tenants AS t ON t.tenant_id = a.tenant_id
JOIN pg_roles AS r ON r.rolname = a.role_name;

-- render_join --
SELECT format('GRANT %I TO CURRENT_USER', $1::text);

-- password_differs --
-- Only a superuser can read pg_authid.
SELECT rolpassword IS DISTINCT FROM $2 FROM pg_authid WHERE rolname = $1;

-- end_overdue_sessions --
-- An open transaction keeps every table of the database from being vacuumed, the queue of pending events
-- included.
SELECT s.pid,
       CASE WHEN l.pid IS NOT NULL THEN 'lock' WHEN s.xact_start < now() - $2::interval THEN 'transaction' ELSE 'idle' END AS reason,
       extract(epoch FROM now() - coalesce(s.xact_start, s.state_change))::integer AS seconds,
       pg_terminate_backend(s.pid) AS ended
FROM pg_stat_activity AS s
LEFT JOIN (
    -- Locks of tables that stop writers, held or waited for.
    SELECT DISTINCT k.pid
    FROM pg_locks AS k
    JOIN pg_class AS c ON c.oid = k.relation
    WHERE k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND k.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND c.relpersistence = 'p'
) AS l ON l.pid = s.pid
WHERE s.usename = $1
  AND (
      l.pid IS NOT NULL
      OR s.xact_start < now() - $2::interval
      OR (s.state = 'idle' AND s.state_change < now() - $3::interval)
  );

-- render_rollbacks --
-- Prepared transactions outlive their sessions, on a server that admits them.
SELECT p.gid, format('ROLLBACK PREPARED %L', p.gid) AS statement
FROM pg_prepared_xacts AS p
JOIN control.analysts AS a ON a.role_name = p.owner
WHERE p.database = current_database() AND p.prepared < now() - $1::interval;
