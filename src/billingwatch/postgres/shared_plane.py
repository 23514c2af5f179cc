"""The schema that all tenants share, in row isolation; see shared_impl for its tables."""

from __future__ import annotations

import msgspec


class SharedPlane(msgspec.Struct, frozen=True, kw_only=True):
    """One schema for all tenants. Its roles are named after it, so that installations can share a server."""

    schema_name: str
    partitions: int = 0
    """Hash partitions by tenant of every table; 0: plain tables."""

    @property
    def scope_role(self) -> str:
        """Whom a tenant scope runs as."""
        return self.schema_name

    @property
    def recorder_role(self) -> str:
        """Whom recording a batch runs as: it writes events of many tenants at once."""
        return f"{self.schema_name}_recorder"

    @property
    def analysts_role(self) -> str:
        """What all analysts are members of. It may read `analysts_schema`, and no table."""
        return f"{self.schema_name}_analysts"

    @property
    def analysts_schema(self) -> str:
        """The schema of the views that analysts read."""
        return self.analysts_role

    @property
    def reader_role(self) -> str:
        """Owns the analysts' views and reads the tables for them."""
        return f"{self.schema_name}_reader"
