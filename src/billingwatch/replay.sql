-- is_paused --
SELECT EXISTS (SELECT FROM control.tenants WHERE tenant_id = $1 AND status = 'paused');

-- has_pending --
SELECT EXISTS (SELECT FROM control.pending_events WHERE tenant_id = $1);
