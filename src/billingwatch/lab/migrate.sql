-- tenants_without --
-- Tenants whose events lack one of the columns.
SELECT count(*)
FROM control.tenants AS t
WHERE (
    SELECT count(*)
    FROM pg_attribute AS a
    WHERE a.attrelid = to_regclass(t.schema_name || '.events') AND a.attname = ANY ($1::text[]) AND NOT a.attisdropped
) < cardinality($1::text[]);
