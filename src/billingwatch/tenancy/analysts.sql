-- lock --
-- Grants to two analysts at once would update the same rows of pg_database and pg_namespace, and one of them would fail.
SELECT pg_advisory_xact_lock(hashtextextended('billingwatch analysts', 0));

-- tenant --
-- A migration of the tenant replaces the views: it waits for the grants, or the grants for it.
SELECT tenant_id, schema_name FROM control.tenants WHERE name = $1 FOR NO KEY UPDATE;

-- insert_analyst --
INSERT INTO control.analysts (role_name, tenant_id, verifier) VALUES ($1, $2, $3);

-- analyst --
SELECT a.role_name, t.name AS tenant, t.schema_name
FROM control.analysts AS a
JOIN control.tenants AS t ON t.tenant_id = a.tenant_id
JOIN pg_roles AS r ON r.rolname = a.role_name
WHERE a.role_name = $1
FOR NO KEY UPDATE OF a;

-- set_verifier --
UPDATE control.analysts SET verifier = $2 WHERE role_name = $1;

-- delete_analyst --
DELETE FROM control.analysts WHERE role_name = $1;

-- is_analyst --
SELECT EXISTS (SELECT FROM control.analysts WHERE role_name = $1);

-- list_analysts --
SELECT t.name AS tenant, t.schema_name, a.role_name AS role, a.created_at,
       (SELECT count(*) FROM pg_stat_activity AS s WHERE s.usename = a.role_name) AS sessions
FROM control.analysts AS a
JOIN control.tenants AS t ON t.tenant_id = a.tenant_id
WHERE $1::text IS NULL OR t.name = $1
ORDER BY t.name, a.created_at, a.role_name;

-- roles_of_tenant --
-- Without roles that somebody dropped by hand: a migration must not fail for them.
SELECT a.role_name FROM control.analysts AS a JOIN pg_roles AS r ON r.rolname = a.role_name WHERE a.tenant_id = $1;

-- render_role --
-- Two limits bind a session: the connection limit, and the limit on temporary files, which only a superuser may set.
-- Privileges keep it from writing. A service that is no superuser sees and ends the role's sessions as its member.
SELECT format(
    $text$
    CREATE ROLE %1$I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD %2$L;
    GRANT CONNECT ON DATABASE %3$I TO %1$I;
    $text$,
    $1::text, $2::text, current_database()
) || CASE WHEN s.rolsuper THEN '' ELSE format('GRANT %I TO CURRENT_USER', $1::text) END
FROM pg_roles AS s
WHERE s.rolname = current_user;

-- render_password --
SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text);

-- render_settings --
-- Defaults, which a session may change. The role may change them, too, here and for one database.
SELECT format('ALTER ROLE %I RESET ALL', $1::text)
    || coalesce(
        (
            SELECT string_agg(format('; ALTER ROLE %I IN DATABASE %I RESET ALL', $1::text, d.datname), '')
            FROM pg_db_role_setting AS o
            JOIN pg_database AS d ON d.oid = o.setdatabase
            WHERE o.setrole = to_regrole($1::text)
        ),
        ''
    )
    || (
        SELECT string_agg(format('; ALTER ROLE %I SET %I = %L', $1::text, w.name, w.value), '')
        FROM unnest($2::text[], $3::text[]) AS w (name, value)
        WHERE w.name <> 'temp_file_limit' OR has_parameter_privilege('temp_file_limit', 'SET')
    );

-- render_membership --
SELECT format('ALTER ROLE %1$I INHERIT; GRANT %2$I TO %1$I', $1::text, $2::text || '_analysts');

-- render_grants --
-- Relation by relation: a table that is no analyst's business stays closed although it lies in the same schema. A schema that is
-- behind may lack some; the migration grants them.
SELECT format('GRANT USAGE ON SCHEMA %1$I TO %2$s; GRANT SELECT ON %3$s TO %2$s', $1::text, roles.list, relations.list)
FROM (SELECT string_agg(quote_ident(role), ', ') AS list FROM unnest($2::text[]) AS r (role)) AS roles,
     (
         SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ') AS list
         FROM pg_class AS c
         JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = ANY ($3::text[]) AND c.relkind IN ('r', 'p', 'v')
     ) AS relations;

-- may_connect --
SELECT has_database_privilege($1::text, current_database(), 'CONNECT');

-- open_doors --
-- What PUBLIC, and so an analyst, may do in this database beyond reading what it was granted: SQL that keeps it for the service's own role, and
-- SQL that takes it from everybody else. NOTIFY cannot be forbidden. Unlocking stays free: pools of clients call it between uses, and
-- it harms nobody.
WITH service AS (
    SELECT string_agg(DISTINCT quote_ident(role), ', ') AS roles
    FROM unnest(ARRAY[
        current_user, (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'control'), (SELECT schema_name FROM control.isolation)
    ]) AS r (role)
),
functions AS (
    SELECT string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid) AS list
    FROM pg_proc AS p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace
      AND (
          p.proname ~ '^pg_(try_)?advisory_(xact_)?lock'
          OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'pg_logical_emit_message')
      )
      AND has_function_privilege('public', p.oid, 'EXECUTE')
)
SELECT false AS superusers_only,
       'connect to the database and create temporary tables' AS deed,
       format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %s', current_database(), s.roles) AS keep,
       format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) AS close
FROM service AS s
WHERE has_database_privilege('public', current_database(), 'CONNECT') OR has_database_privilege('public', current_database(), 'TEMPORARY')
UNION ALL
SELECT false,
       'use the schema public',
       format('GRANT CREATE, USAGE ON SCHEMA public TO %s', s.roles),
       'REVOKE CREATE, USAGE ON SCHEMA public FROM PUBLIC'
FROM service AS s
JOIN pg_namespace AS n ON n.nspname = 'public'
WHERE has_schema_privilege('public', n.oid, 'USAGE') OR has_schema_privilege('public', n.oid, 'CREATE')
UNION ALL
SELECT false,
       'take advisory locks and write large objects and WAL messages',
       format('GRANT EXECUTE ON FUNCTION %s TO %s', f.list, s.roles),
       format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.list)
FROM service AS s, functions AS f
WHERE f.list IS NOT NULL
UNION ALL
-- CREATE RULE and CREATE TRIGGER lock the table before PostgreSQL checks who owns it. While they wait for the lock, all writers wait
-- behind them. The trigger refuses them before that.
SELECT true,
       'stop the writers of a table that it may read',
       $keep$CREATE OR REPLACE FUNCTION control.refuse_ddl_of_analysts() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog
        AS $function$ BEGIN
            IF session_user ~ '^analyst_[a-z2-7]{10}$' THEN
                RAISE insufficient_privilege USING MESSAGE = 'an analyst may only read';
            END IF;
        END $function$$keep$,
       'CREATE EVENT TRIGGER billingwatch_analysts ON ddl_command_start EXECUTE FUNCTION control.refuse_ddl_of_analysts()'
WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'billingwatch_analysts');

-- is_superuser --
SELECT rolsuper FROM pg_roles WHERE rolname = current_user;

-- render_shut --
-- Membership lets a service that is no superuser end the role's sessions and drop what it owns. Null when the role is gone already.
SELECT format('ALTER ROLE %I NOLOGIN', r.rolname) || CASE WHEN s.rolsuper THEN '' ELSE format('; GRANT %I TO CURRENT_USER', r.rolname) END
FROM pg_roles AS r, pg_roles AS s
WHERE r.rolname = $1 AND s.rolname = current_user;

-- limit_lock_wait --
SET LOCAL lock_timeout = '500ms';

-- unlimit_lock_wait --
SET LOCAL lock_timeout = 0;

-- end_sessions --
-- Waits up to five seconds for each to end.
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1;

-- end_readers --
-- Those that hold a lock on a table or view of the schemas.
SELECT h.pid, s.usename AS role, pg_terminate_backend(h.pid, 1000) AS ended
FROM (
    SELECT DISTINCT l.pid
    FROM pg_locks AS l
    JOIN pg_class AS c ON c.oid = l.relation
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND n.nspname = ANY ($1::text[])
) AS h
JOIN pg_stat_activity AS s ON s.pid = h.pid
JOIN control.analysts AS a ON a.role_name = s.usename;

-- render_drop --
SELECT format('DROP OWNED BY %1$I; DROP ROLE %1$I', $1::text);
