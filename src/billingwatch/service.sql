-- backlog --
-- Events of paused tenants are not late: they wait until somebody resumes the tenant.
SELECT count(*) FILTER (WHERE t.tenant_id IS NULL) AS events,
       coalesce(extract(epoch FROM $1 - min(p.received_at) FILTER (WHERE t.tenant_id IS NULL)), 0)::double precision AS age,
       count(t.tenant_id) AS paused,
       (SELECT count(*) FROM control.dead_letters) AS dead_letters
FROM control.pending_events AS p
LEFT JOIN control.tenants AS t ON t.tenant_id = p.tenant_id AND t.status = 'paused';
