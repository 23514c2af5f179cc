-- is_vacuuming --
-- A worker that only looks for something to do is not in these views.
SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum) OR EXISTS (SELECT FROM pg_stat_progress_analyze);
