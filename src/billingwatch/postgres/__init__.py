"""Postgres: the server, connections to it, named SQL, and the table definitions of both planes."""
