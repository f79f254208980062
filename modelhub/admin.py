"""The hub in the admin: everything to be read, little to be changed, nothing to be deleted.

Artifacts, versions and runs are what lineages are made of. What a person may do with them goes
through the services, so that it is the same here as on the pages.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Model as DjangoModel
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from modelhub import tasks
from modelhub.errors import ApplicationError
from modelhub.models import (
    Alias,
    AliasMove,
    Artifact,
    Endpoint,
    Model,
    ModelVersion,
    Run,
    RunInput,
    RunOutput,
)
from modelhub.policy import may_use_hub
from modelhub.services.runs import run_cancel, run_retry


class ReadOnly:
    """To be seen by those who may use the hub, and changed by nobody here."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_use_hub(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_use_hub(request.user)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class RunInputInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = RunInput
    fields = ["role", "artifact"]


class RunOutputInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = RunOutput
    fields = ["role", "artifact"]


@admin.register(Run)
class RunAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["__str__", "badge", "label", "progress", "requested_by", "created_at", "page"]
    list_filter = ["status", "program", "queue"]
    search_fields = ["uid", "label"]
    list_select_related = ["requested_by"]
    date_hierarchy = "created_at"
    inlines = [RunInputInline, RunOutputInline]
    actions = ["cancel", "retry"]

    class Media:
        css = {"all": ["modelhub/admin.css"]}

    @admin.display(description="status", ordering="status")
    def badge(self, run: Run) -> SafeString:
        return format_html(
            '<span class="badge" data-state="{}">{}</span>', run.status, run.get_status_display()
        )

    @admin.display
    def progress(self, run: Run) -> str:
        if not run.progress_total:
            return ""
        return f"{run.progress_done} of {run.progress_total} {run.progress_unit}"

    @admin.display(description="")
    def page(self, run: Run) -> SafeString:
        return format_html('<a href="{}">curves and log</a>', self.view_on_site(run))

    def view_on_site(self, run: Run) -> str:
        return reverse("run_detail", args=[run.uid])

    @admin.action(description="Cancel the selected runs", permissions=["view"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        self._act(request, queryset, run_cancel, "cancelled, or stopping")
        tasks.run_ended_ring()

    @admin.action(description="Retry the selected runs", permissions=["view"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        self._act(request, queryset, run_retry, "queued again")
        tasks.ring_queued_runs.delay_on_commit()

    def _act(
        self, request: HttpRequest, runs: QuerySet[Run], service: Callable[..., Run], done: str
    ) -> None:
        actor = request.user if isinstance(request.user, User) else None
        count = 0
        for run in runs.order_by("pk"):
            try:
                service(run=run, actor=actor)
                count += 1
            except ApplicationError as error:
                self.message_user(request, f"{run}: {error.message}", messages.ERROR)
        if count:
            self.message_user(request, f"{count} {done}.", messages.SUCCESS)


class VersionInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = ModelVersion
    fields = ["number", "role", "artifact", "run", "parameters", "dtype"]
    show_change_link = True


@admin.register(Model)
class ModelAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "description", "created_at"]
    search_fields = ["name", "description"]
    inlines = [VersionInline]

    def view_on_site(self, model: Model) -> str:
        return reverse("model_detail", args=[model.uid])


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["__str__", "role", "parameters", "dtype", "parent", "run", "created_at", "page"]
    list_filter = ["role", "model"]
    list_select_related = ["model", "parent__model", "run"]
    search_fields = ["model__name", "uid"]

    @admin.display(description="")
    def page(self, version: ModelVersion) -> SafeString:
        return format_html('<a href="{}">lineage</a>', self.view_on_site(version))

    def view_on_site(self, version: ModelVersion) -> str:
        return reverse("version_detail", args=[version.uid])


class AliasMoveInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = AliasMove
    fields = ["before", "after", "actor", "reason", "created_at"]
    readonly_fields = ["created_at"]


@admin.register(Alias)
class AliasAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """Moved on the version's page, so that the move is kept."""

    list_display = ["__str__", "version"]
    list_select_related = ["model", "version__model"]
    inlines = [AliasMoveInline]

    def view_on_site(self, alias: Alias) -> str:
        return reverse("version_detail", args=[alias.version.uid])


@admin.register(Artifact)
class ArtifactAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["__str__", "kind", "size_bytes", "created_at"]
    list_filter = ["kind"]
    search_fields = ["sha256"]


@admin.register(Endpoint)
class EndpointAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Registering an address with a variable is what lets a program have that key."""

    list_display = ["name", "base_url", "served_model", "api_key_variable"]
    search_fields = ["name", "base_url"]

    def get_readonly_fields(
        self, request: HttpRequest, obj: DjangoModel | None = None
    ) -> tuple[str, ...]:
        return ("name",) if obj else ()
