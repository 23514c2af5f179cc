-- break --
ALTER TABLE {schema}.events ADD COLUMN {column} text

-- mend --
ALTER TABLE {schema}.events DROP COLUMN {column}

-- behind --
SELECT count(*)
FROM control.tenants AS t
WHERE CASE WHEN $2 = 'row' THEN (SELECT i.revision FROM control.isolation AS i) ELSE t.revision END <> $1;
