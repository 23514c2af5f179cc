-- sizes --
SELECT (SELECT count(*) FROM pg_class) AS relations,
       (SELECT count(*) FROM pg_attribute) AS columns,
       (SELECT sum(pg_total_relation_size(oid)) / 1048576.0 FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r') AS catalog_mb,
       pg_database_size(current_database()) / 1048576.0 AS database_mb,
       (SELECT count(*) FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database WHERE datname = current_database()))) AS files;
