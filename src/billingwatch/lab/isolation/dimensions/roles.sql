-- names --
SELECT tenant_id, name FROM control.tenants;

-- question --
SELECT * FROM anomalies_open LIMIT 10;
