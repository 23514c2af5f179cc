-- register --
INSERT INTO control.processors (host, pid) VALUES ($1, $2) RETURNING processor_id;

-- report --
UPDATE control.processors SET reported_at = now() WHERE processor_id = $1 RETURNING processor_id;

-- unregister --
DELETE FROM control.processors WHERE processor_id = $1;

-- delete_stale --
DELETE FROM control.processors WHERE reported_at < now() - interval '1 day' OR reported_at > now() + interval '1 day';

-- count --
-- A report from the future was written before the server's clock was set back.
SELECT count(*) FROM control.processors
WHERE reported_at BETWEEN now() - make_interval(secs => $1) AND now() + make_interval(secs => $1);
