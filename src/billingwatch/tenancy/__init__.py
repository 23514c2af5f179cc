"""Tenancy: who the tenants are, the one door to a tenant's tables, and a tenant's life from provisioning on."""
