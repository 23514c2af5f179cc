-- name_of_tenant --
SELECT name FROM control.tenants WHERE tenant_id = $1;
