-- put_last_use --
-- Keys that another transaction has locked, such as a removal, are skipped, because look-ups of tokens share
-- this connection.
UPDATE control.api_keys AS k
SET last_used_at = used.last_used_at
FROM unnest($1::integer[], $2::timestamptz[]) AS used (key_id, last_used_at)
WHERE k.key_id = used.key_id
  AND k.key_hash IN (
      SELECT l.key_hash
      FROM control.api_keys AS l
      JOIN unnest($1::integer[], $2::timestamptz[]) AS u (key_id, last_used_at) ON u.key_id = l.key_id
      WHERE l.last_used_at IS NULL OR l.last_used_at < u.last_used_at
      FOR NO KEY UPDATE OF l SKIP LOCKED
  );
