-- heavy --
-- Every charge with every other of the same customer and amount: no index helps.
SELECT count(*)
FROM (SELECT * FROM charges ORDER BY charge_id LIMIT 20000) AS a
JOIN (SELECT * FROM charges ORDER BY charge_id LIMIT 20000) AS b ON b.customer_id = a.customer_id AND b.amount > a.amount;

-- lock --
LOCK TABLE {schema}.events IN ACCESS EXCLUSIVE MODE
