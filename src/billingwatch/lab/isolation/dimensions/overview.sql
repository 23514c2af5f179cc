-- captured --
SELECT currency, sum(amount_captured)::bigint AS captured FROM {schema}.charges WHERE created_at >= now() - interval '30 days' AND status = 'succeeded' GROUP BY currency
