-- has_pending --
SELECT EXISTS (SELECT FROM control.pending_events WHERE tenant_id = $1);
