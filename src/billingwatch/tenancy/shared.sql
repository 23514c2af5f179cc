-- find_isolation --
SELECT kind, schema_name, partitions, revision, views_digest FROM control.isolation;

-- missing_roles --
SELECT string_agg(r.name, ', ') FROM unnest($1::text[]) AS r (name) WHERE to_regrole(r.name) IS NULL;

-- claim_shared --
-- Tenants that are being provisioned meanwhile wait, and then take the new revision.
SELECT revision, views_digest FROM control.isolation FOR NO KEY UPDATE;

-- choose_row --
UPDATE control.isolation SET kind = 'row', schema_name = $1, partitions = $2, revision = $3, views_digest = $4;

-- set_revision --
WITH shared AS (
    UPDATE control.isolation SET revision = $1, views_digest = $2
)
UPDATE control.tenants SET revision = $1, views_digest = $2 WHERE (revision, views_digest) IS DISTINCT FROM ($1, $2);

-- create_roles --
CREATE ROLE {scope} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
CREATE ROLE {recorder} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
CREATE ROLE {analysts} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
CREATE ROLE {reader} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;

-- join_scope --
-- A superuser may become whom it wants to.
GRANT {scope} TO CURRENT_USER;

-- open_schema --
GRANT USAGE ON SCHEMA {schema} TO {scope}, {recorder}, {reader};
GRANT USAGE ON SCHEMA control TO {scope}, {recorder};

-- let_record --
GRANT SELECT, INSERT, UPDATE ON events TO {recorder};
CREATE POLICY recorder ON events TO {recorder} USING (true);
GRANT INSERT ON control.pending_events TO {recorder};

-- open_control_plane --
-- Inside a scope the service reads and writes of the control plane what it does in the other isolation.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA control TO {scope};

-- take_tables_from_analysts --
-- For a database in which an earlier release let analysts read the tables themselves.
DO $$
DECLARE
    name text;
BEGIN
    IF to_regrole('{reader}') IS NULL THEN
        CREATE ROLE {reader} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
        GRANT USAGE ON SCHEMA {schema} TO {reader};
        FOR name IN
            SELECT p.tablename FROM pg_policies AS p WHERE p.schemaname = '{schema}' AND p.policyname = 'analyst'
        LOOP
            EXECUTE format('ALTER POLICY analyst ON {schema}.%I TO {reader}', name);
        END LOOP;
        REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {analysts};
        REVOKE ALL ON SCHEMA {schema} FROM {analysts};
    END IF;
END
$$;

-- drop_analysts_views --
GRANT {reader} TO CURRENT_USER;
DROP SCHEMA IF EXISTS {analysts} CASCADE;
REVOKE {reader} FROM CURRENT_USER;

-- create_analysts_schema --
-- The caller goes on as the reader, with the analysts' schema on its path, and ends with close_analysts_schema.
GRANT {reader} TO CURRENT_USER;
CREATE SCHEMA {analysts} AUTHORIZATION {reader};
SET LOCAL ROLE {reader};
SET LOCAL search_path = {analysts};

-- create_table_views --
-- Row-level security does not cover statistics: the planner uses those of all tenants for conditions that cannot
-- leak rows, and EXPLAIN shows its estimate. OFFSET 0 keeps conditions outside the subquery, and outside a security
-- barrier the planner looks up no statistics. Both are needed.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname
        FROM pg_class AS c
        WHERE c.relnamespace = '{schema}'::regnamespace
          AND c.relname = ANY ('{tables}'::text[])
          AND c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('CREATE VIEW %1$I WITH (security_barrier) AS SELECT * FROM {schema}.%1$I OFFSET 0', name);
    END LOOP;
END
$$;

-- close_analysts_schema --
GRANT USAGE ON SCHEMA {analysts} TO {analysts};
GRANT SELECT ON ALL TABLES IN SCHEMA {analysts} TO {analysts};
RESET ROLE;
SET LOCAL search_path = pg_catalog;
REVOKE {reader} FROM CURRENT_USER;

-- tenant_of_analyst --
-- Whose rows an analyst may see. It runs as its owner, because an analyst may not read who the others are, nor ask for them.
CREATE OR REPLACE FUNCTION control.tenant_of_analyst(role_name name) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.tenant_id FROM control.analysts AS a WHERE a.role_name = $1 AND pg_has_role(session_user, $1, 'MEMBER')
$$;

-- record_events --
-- The same contract as in the other isolation (see the control plane's revision 0005): one statement for the events of all tenants. It
-- runs as a role that may write for many tenants, because outside a scope the service's own role sees none.
CREATE OR REPLACE FUNCTION control.record_events(
    tenant_ids integer[], schema_names text[], event_ids text[], types text[], api_versions text[], livemodes boolean[],
    accounts text[], object_ids text[], occurred timestamptz[], signed timestamptz[], received timestamptz[],
    times integer[], dispositions text[], payloads text[]
) RETURNS boolean[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_new boolean[];
BEGIN
    IF NOT (dispositions <@ ARRAY['process', 'ignored', 'needs_fetch'] AND 0 < ALL (times)) THEN
        RAISE check_violation USING MESSAGE = 'a disposition that there is not, or a delivery that is none';
    END IF;
    WITH inserted AS (
        INSERT INTO {schema}.events (
            tenant_id, event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at,
            deliveries, disposition, payload
        )
        SELECT g.tenant_id, g.event_id, g.type, g.api_version, g.livemode, g.account, g.object_id, g.occurred_at, g.signed_at, g.received_at,
               g.received_at, g.deliveries, g.disposition, g.payload::json
        FROM unnest(
            tenant_ids, event_ids, types, api_versions, livemodes, accounts, object_ids, occurred, signed, received, times, dispositions, payloads
        ) AS g (
            tenant_id, event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, deliveries, disposition,
            payload
        )
        ON CONFLICT ON CONSTRAINT events_pkey DO NOTHING
        RETURNING tenant_id, event_id
    )
    SELECT coalesce(array_agg((g.tenant_id, g.event_id) IN (SELECT i.tenant_id, i.event_id FROM inserted AS i) ORDER BY g.position), '{{}}')
    INTO is_new
    FROM unnest(tenant_ids, event_ids) WITH ORDINALITY AS g (tenant_id, event_id, position);
    IF false = ANY (is_new) THEN
        UPDATE {schema}.events AS e
        SET deliveries = e.deliveries + g.deliveries,
            last_received_at = greatest(e.last_received_at, g.received_at)
        FROM unnest(tenant_ids, event_ids, received, times, is_new) AS g (tenant_id, event_id, received_at, deliveries, is_new)
        WHERE e.tenant_id = g.tenant_id AND e.event_id = g.event_id AND NOT g.is_new;
    END IF;
    INSERT INTO control.pending_events (tenant_id, event_id, received_at)
    SELECT g.tenant_id, g.event_id, g.received_at
    FROM unnest(tenant_ids, event_ids, received, dispositions, is_new) WITH ORDINALITY
        AS g (tenant_id, event_id, received_at, disposition, is_new, position)
    WHERE g.is_new AND g.disposition = 'process'
    ORDER BY g.position;
    RETURN is_new;
END
$$;

-- record_body --
-- The same contract as in the other isolation (see the control plane's revision 0006).
CREATE OR REPLACE FUNCTION control.record_body(
    tenant_id integer, schema_name text, event_id text, type text, api_version text, livemode boolean,
    account text, object_id text, occurred_at timestamptz, signed_at timestamptz, received_at timestamptz,
    disposition text, body bytea
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    count integer;
BEGIN
    IF disposition NOT IN ('process', 'ignored', 'needs_fetch') THEN
        RAISE check_violation USING MESSAGE = 'unknown disposition';
    END IF;
    INSERT INTO {schema}.events (
        tenant_id, event_id, type, api_version, livemode, account, object_id, occurred_at, signed_at, received_at, last_received_at,
        deliveries, disposition, payload, body
    )
    VALUES (
        record_body.tenant_id, record_body.event_id, record_body.type, record_body.api_version, record_body.livemode, record_body.account,
        record_body.object_id, record_body.occurred_at, record_body.signed_at, record_body.received_at, record_body.received_at,
        1, record_body.disposition, 'null', record_body.body
    )
    ON CONFLICT ON CONSTRAINT events_pkey DO NOTHING;
    GET DIAGNOSTICS count = ROW_COUNT;
    IF count = 0 THEN
        UPDATE {schema}.events AS e
        SET deliveries = e.deliveries + 1, last_received_at = greatest(e.last_received_at, record_body.received_at)
        WHERE e.tenant_id = record_body.tenant_id AND e.event_id = record_body.event_id;
    ELSIF record_body.disposition = 'process' THEN
        INSERT INTO control.pending_events (tenant_id, event_id, received_at)
        VALUES (record_body.tenant_id, record_body.event_id, record_body.received_at);
    END IF;
    RETURN count = 1;
END
$$;

-- recording_functions --
-- Those of the control plane's revision that run as the recorder; the names of their statements here are the same.
SELECT ARRAY(
    SELECT p.proname::text FROM pg_proc AS p
    WHERE p.pronamespace = 'control'::regnamespace AND p.proname IN ('record_events', 'record_body')
    ORDER BY p.proname
);

-- give_to_recorder --
-- Who gives a function away must be able to become its new owner, who must be able to create in its schema. Neither may last: the service's role
-- would inherit what the recorder sees. What the old owner may do with it goes to the new one, who gives it back.
GRANT {recorder} TO CURRENT_USER;
GRANT CREATE ON SCHEMA control TO {recorder};
ALTER FUNCTION control.{function} OWNER TO {recorder};
REVOKE CREATE ON SCHEMA control FROM {recorder};
SET LOCAL ROLE {recorder};
REVOKE EXECUTE ON FUNCTION control.{function} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.{function} TO SESSION_USER;
RESET ROLE;
REVOKE {recorder} FROM CURRENT_USER;

-- take_from_recorder --
-- So that a revision of the control plane may replace it.
GRANT {recorder} TO CURRENT_USER;
ALTER FUNCTION control.{function} OWNER TO CURRENT_USER;
REVOKE {recorder} FROM CURRENT_USER;
