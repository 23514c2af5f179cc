"""What django-tenants needs in the shared schema: tenants and their domains."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Client(TenantMixin):
    """A tenant; saving it makes its schema."""

    name = models.CharField(max_length=63, unique=True)

    auto_create_schema = True
    auto_drop_schema = True


class Domain(DomainMixin):
    """Required by django-tenants, and not used here."""
