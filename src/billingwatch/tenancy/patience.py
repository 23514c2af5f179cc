"""Patience: how long a migration waits for tables that are in use before it gives way and comes again later."""

from __future__ import annotations

# Short, because whoever comes to a table while a migration waits for it has to wait as well.
BRIEF_LOCKS = """\
SET LOCAL lock_timeout = '200ms';
SELECT set_config('deadlock_timeout', '100ms', true) WHERE has_parameter_privilege('deadlock_timeout', 'SET');
"""
"""Opens a migration's transaction. An autovacuum in its way is cancelled by PostgreSQL after deadlock_timeout, which must therefore be the
shorter one; and of a migration and a visit that wait for each other, it is the migration that finds out first, and gives way. A role that
may not set deadlock_timeout gives way as well, because the default is longer than lock_timeout, but to an autovacuum too."""
