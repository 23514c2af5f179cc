-- open_session --
-- An analyst may undo the limits that were set for its role.
SET default_transaction_read_only = off;
SET statement_timeout = 0;
SET work_mem = '1GB';

-- notify --
SELECT count(pg_notify('billingwatch_tenants', i::text)) FROM generate_series(1, 500000) AS g (i);

-- open_snapshot --
BEGIN ISOLATION LEVEL REPEATABLE READ;

-- take_snapshot --
SELECT count(*) FROM pg_class;

-- heavy --
SELECT length(string_agg(md5(i::text), ',' ORDER BY md5(i::text))) FROM generate_series(1, 3000000) AS g (i);
