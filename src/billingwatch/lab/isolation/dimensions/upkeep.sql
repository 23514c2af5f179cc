-- checkpoint --
CHECKPOINT;

-- vacuum --
VACUUM (ANALYZE);

-- touch --
UPDATE events SET deliveries = deliveries + 1 WHERE event_id = $1;
