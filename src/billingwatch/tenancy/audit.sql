-- insert_audit --
INSERT INTO control.audit_log (tenant_id, actor, action, detail) VALUES ($1, $2, $3, $4);
