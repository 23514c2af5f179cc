"""Detectors: one module and one .sql file each. No I/O here: the engine runs the SQL and hands over the rows."""
