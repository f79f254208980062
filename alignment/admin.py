"""Campaigns and rounds in the admin: read here, moved by the same services as on the pages.

A person of the staff sees the projects that she manages. Nothing is edited and nothing deleted:
rounds are what lineages are made of.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from alignment.models import Campaign, Evaluation, Round, RoundRun, StageEvent
from alignment.services.rounds import (
    round_annotation_close,
    round_cancel,
    round_continue,
    round_decide,
    round_retry,
)
from alignment.tasks import advance_round, advance_rounds
from annotation.policy import projects_managed
from modelhub.errors import ApplicationError


class ManagedOnly:
    """Seen by those who manage the project it belongs to; changed by nobody here."""

    project_path = ""  # from the row to its project

    def has_module_permission(self, request: HttpRequest) -> bool:
        return projects_managed(request.user).exists()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)  # type: ignore[misc]
        return rows.filter(**{f"{self.project_path}__in": projects_managed(request.user)})


class RoundInline(ManagedOnly, admin.TabularInline):  # type: ignore[type-arg]
    project_path = "campaign__project"
    model = Round
    fields = ["number", "state", "policy_in", "policy_out", "created_at"]
    readonly_fields = ["created_at"]
    show_change_link = True


@admin.register(Campaign)
class CampaignAdmin(ManagedOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    project_path = "project"
    list_display = ["name", "project", "base_version", "champion_alias", "created_at", "start"]
    list_select_related = ["project", "base_version__model"]
    search_fields = ["uid", "name"]
    inlines = [RoundInline]

    @admin.display(description="")
    def start(self, campaign: Campaign) -> SafeString:
        return format_html(
            '<a href="{}">Start a round</a>', reverse("round_new", args=[campaign.uid])
        )

    def view_on_site(self, campaign: Campaign) -> str:
        return reverse("campaign_detail", args=[campaign.uid])


class RoundRunInline(ManagedOnly, admin.TabularInline):  # type: ignore[type-arg]
    project_path = "round__campaign__project"
    model = RoundRun
    fields = ["lap", "stage", "role", "run", "status"]
    readonly_fields = ["status"]

    @admin.display
    def status(self, link: RoundRun) -> str:
        return link.run.get_status_display()


class StageEventInline(ManagedOnly, admin.TabularInline):  # type: ignore[type-arg]
    project_path = "round__campaign__project"
    model = StageEvent
    fields = ["before", "after", "actor", "reason", "created_at"]
    readonly_fields = ["created_at"]


@admin.register(Round)
class RoundAdmin(ManagedOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    project_path = "campaign__project"
    list_display = ["__str__", "badge", "lap", "policy_in", "policy_out", "created_at", "page"]
    list_filter = ["state", ("campaign", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["campaign", "policy_in__model", "policy_out__model"]
    search_fields = ["uid", "campaign__name"]
    inlines = [RoundRunInline, StageEventInline]
    actions = [
        "advance",
        "close_annotating",
        "go_on",
        "promote",
        "reject",
        "retry",
        "cancel",
    ]

    class Media:
        css = {"all": ["modelhub/admin.css"]}

    @admin.display(description="state", ordering="state")
    def badge(self, round: Round) -> SafeString:
        return format_html(
            '<span class="badge" data-state="{}">{}</span>', round.state, round.get_state_display()
        )

    @admin.display(description="")
    def page(self, round: Round) -> SafeString:
        return format_html('<a href="{}">stages and figures</a>', self.view_on_site(round))

    def view_on_site(self, round: Round) -> str:
        return reverse("round_detail", args=[round.uid])

    @admin.action(description="Advance the selected rounds now", permissions=["view"])
    def advance(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        for round in queryset:
            advance_round.delay_on_commit(round.pk)
        self.message_user(request, "They go on as far as they can.", messages.SUCCESS)

    @admin.action(description="Close annotating", permissions=["view"])
    def close_annotating(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        self._act(request, queryset, round_annotation_close, "closed")

    @admin.action(description="Let through the human gate", permissions=["view"])
    def go_on(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        self._act(request, queryset, round_continue, "going on")

    @admin.action(description="Promote the new policy", permissions=["view"])
    def promote(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        def promote(*, round: Round, actor: User | None) -> Round:
            return round_decide(round=round, promote=True, actor=actor)

        self._act(request, queryset, promote, "promoted")

    @admin.action(description="Reject the new policy", permissions=["view"])
    def reject(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        def reject(*, round: Round, actor: User | None) -> Round:
            return round_decide(round=round, promote=False, actor=actor)

        self._act(request, queryset, reject, "rejected")

    @admin.action(description="Retry where they failed", permissions=["view"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        self._act(request, queryset, round_retry, "going on")

    @admin.action(description="Cancel the selected rounds", permissions=["view"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Round]) -> None:
        self._act(request, queryset, round_cancel, "cancelled")

    def _act(
        self,
        request: HttpRequest,
        rounds: QuerySet[Round],
        service: Callable[..., Round],
        done: str,
    ) -> None:
        actor = request.user if isinstance(request.user, User) else None
        count = 0
        for round in rounds.order_by("pk"):
            try:
                service(round=round, actor=actor)
                count += 1
            except ApplicationError as error:
                self.message_user(request, f"{round}: {error.message}", messages.ERROR)
        if count:
            self.message_user(request, f"{count} {done}.", messages.SUCCESS)
            advance_rounds.delay_on_commit()


@admin.register(StageEvent)
class StageEventAdmin(ManagedOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    project_path = "round__campaign__project"
    list_display = ["round", "before", "after", "actor", "reason", "created_at"]
    list_filter = ["after"]
    list_select_related = ["round__campaign", "actor"]
    date_hierarchy = "created_at"


@admin.register(Evaluation)
class EvaluationAdmin(ManagedOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    project_path = "round__campaign__project"
    list_display = ["round", "before", "after", "reward_difference", "kl", "created_at"]
    list_select_related = ["round__campaign", "before__model", "after__model"]

    @admin.display(description="reward, new − old")
    def reward_difference(self, evaluation: Evaluation) -> str:
        found = evaluation.metrics["reward_difference"]
        return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"

    @admin.display(description="KL, nats per answer")
    def kl(self, evaluation: Evaluation) -> str:
        return f"{evaluation.metrics['kl_per_answer_nats']:.2f}"

    def view_on_site(self, evaluation: Model) -> str:
        assert isinstance(evaluation, Evaluation)  # noqa: S101 - the admin of this model
        return reverse("round_samples", args=[evaluation.round.uid])
