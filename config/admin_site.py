"""The admin site: Django's own, in Rondo's clothes, entered through Rondo's sign-in page."""

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig


class RondoAdminConfig(AdminConfig):
    default_site = "config.admin_site.RondoAdminSite"


class RondoAdminSite(admin.AdminSite):
    site_header = "Rondo"
    site_title = "Rondo admin"
    index_title = "Administration"
