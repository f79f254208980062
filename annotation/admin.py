"""Annotation in the admin: managers see what is their projects', and change next to nothing.

What people said is never edited. People, prompts and datasets are made on the project's pages, by
the same services as everywhere; the actions below call those too.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse

from annotation import policy, selectors
from annotation.exports import dataset_export_response
from annotation.models import (
    Adjudication,
    Assignment,
    Candidate,
    CandidateBatch,
    Comparison,
    Demonstration,
    Dialogue,
    Edit,
    Guideline,
    Membership,
    PersonalToken,
    PreferenceDataset,
    Project,
    ProjectToken,
    Prompt,
    Question,
    Ranking,
    Rating,
    Report,
    Review,
    Submission,
    SubmissionRevision,
    Task,
    TaskCandidate,
    TaskForm,
)
from annotation.services.batches import batch_tasks_close, candidate_batch_ingest
from annotation.services.datasets import preference_dataset_verify
from annotation.services.personal_tokens import personal_token_revoke
from annotation.services.tokens import project_token_revoke
from modelhub.errors import ApplicationError
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import RecordError

OF_PROJECT = ("project", admin.RelatedOnlyFieldListFilter)


class ReadOnly:
    """To be seen by managers, and changed by nobody here."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return policy.manages_any(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return policy.manages_any(request.user)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ProjectScoped(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """The rows of the projects the person manages; the others do not exist."""

    to_project = "project"  # the lookup that leads from a row to its project
    show_full_result_count = False
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        managed = policy.projects_managed(request.user)
        return super().get_queryset(request).filter(**{f"{self.to_project}__in": managed})


class MembershipInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    fields = ["user", "role", "source", "removed_at"]


class GuidelineInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Guideline
    fields = ["number", "author", "created_at"]
    readonly_fields = ["number", "author", "created_at"]


@admin.register(Project)
class ProjectAdmin(ProjectScoped):
    to_project = "pk"
    list_display = ["name", "overlap", "created_by", "created_at"]
    search_fields = ["name", "uid"]
    fields = ["name", "description", "overlap", "created_by", "created_at"]
    readonly_fields = ["created_by", "created_at"]
    inlines = [MembershipInline, GuidelineInline]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return policy.manages_any(request.user)


@admin.register(Guideline)
class GuidelineAdmin(ProjectScoped):
    list_display = ["__str__", "author", "created_at"]
    list_filter = [OF_PROJECT]


@admin.register(Prompt)
class PromptAdmin(ProjectScoped):
    list_display = ["__str__", "project", "split", "tags", "source"]
    list_filter = [OF_PROJECT, "split"]
    search_fields = ["uid", "messages"]
    list_select_related = ["project"]


@admin.register(CandidateBatch)
class CandidateBatchAdmin(ProjectScoped):
    list_display = ["__str__", "project", "purpose", "run_status", "judged", "ingested_at"]
    list_filter = [OF_PROJECT, "purpose"]
    list_select_related = ["project", "version__model", "run"]
    search_fields = ["uid"]
    actions = ["ingest", "close"]

    @admin.display(description="run")
    def run_status(self, batch: CandidateBatch) -> str:
        return batch.run.get_status_display()

    @admin.display
    def judged(self, batch: CandidateBatch) -> str:
        if not batch.overlap:
            return ""
        progress = selectors.batch_progress(batch=batch)
        return f"{progress.accepted} of {progress.slots}"

    @admin.action(description="Take the answers in now", permissions=["view"])
    def ingest(self, request: HttpRequest, queryset: QuerySet[CandidateBatch]) -> None:
        for batch in queryset:
            try:
                count = candidate_batch_ingest(batch=batch)
                self.message_user(request, f"{batch}: {count} new candidates.")
            except ApplicationError as error:
                self.message_user(request, error.message, messages.ERROR)

    @admin.action(description="Hand the tasks out no more", permissions=["view"])
    def close(self, request: HttpRequest, queryset: QuerySet[CandidateBatch]) -> None:
        for batch in queryset:
            self.message_user(request, f"{batch}: {batch_tasks_close(batch=batch)} tasks closed.")


@admin.register(Candidate)
class CandidateAdmin(ProjectScoped):
    to_project = "prompt__project"
    list_display = ["__str__", "version", "index", "finish_reason", "token_count"]
    list_filter = [("prompt__project", admin.RelatedOnlyFieldListFilter), "finish_reason"]
    list_select_related = ["version__model"]
    search_fields = ["uid"]


class TaskCandidateInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = TaskCandidate
    fields = ["position", "candidate"]


class AssignmentInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Assignment
    fields = ["annotator", "state", "lease_until", "skip_reason", "active_s"]


@admin.register(Task)
class TaskAdmin(ProjectScoped):
    list_display = [
        "__str__",
        "prompt",
        "overlap",
        "slots_free",
        "priority",
        "held_at",
        "closed_at",
    ]
    list_filter = [OF_PROJECT, "kind"]
    list_select_related = ["prompt"]
    search_fields = ["uid"]
    inlines = [TaskCandidateInline, AssignmentInline]


@admin.register(Assignment)
class AssignmentAdmin(ProjectScoped):
    to_project = "task__project"
    list_display = ["uid", "annotator", "state", "lease_until", "skip_reason", "active_s"]
    list_filter = [("task__project", admin.RelatedOnlyFieldListFilter), "state"]
    list_select_related = ["annotator__user", "annotator__project"]
    search_fields = ["uid"]


@admin.register(Question)
class QuestionAdmin(ProjectScoped):
    to_project = "assignment__task__project"
    list_display = ["__str__", "assignment", "answered_by", "answered_at", "created_at"]
    list_filter = [("assignment__task__project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["answered_by__user", "answered_by__project"]
    search_fields = ["uid"]


@admin.register(Report)
class ReportAdmin(ProjectScoped):
    to_project = "task__project"
    list_display = ["__str__", "task", "reporter", "decision", "decided_at", "created_at"]
    list_filter = [("task__project", admin.RelatedOnlyFieldListFilter), "decision"]
    list_select_related = ["task", "reporter__user", "reporter__project"]
    search_fields = ["uid"]


class RankingInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = Ranking
    fields = ["tiers", "unacceptable"]


class ComparisonInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = Comparison
    fields = ["better", "worse", "degree", "unsafe"]


class RatingInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = Rating
    fields = ["ratings"]


class EditInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = Edit
    fields = ["original", "candidate", "changed_share", "diff"]


class DemonstrationInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = Demonstration
    fields = ["candidate", "started_from", "turns"]


class DialogueInline(ReadOnly, admin.StackedInline):  # type: ignore[type-arg]
    model = Dialogue
    fields = ["turns"]


class ReviewInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Review
    fields = ["reviewer", "verdict", "reason", "created_at"]
    readonly_fields = ["created_at"]


class RevisionInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = SubmissionRevision
    fields = ["payload", "created_at"]
    readonly_fields = ["payload", "created_at"]


@admin.register(Submission)
class SubmissionAdmin(ProjectScoped):
    to_project = "task__project"
    list_display = ["__str__", "annotator", "status", "source", "active_s", "created_at"]
    list_filter = [
        ("task__project", admin.RelatedOnlyFieldListFilter),
        "status",
        "source",
    ]
    list_select_related = ["annotator__user", "annotator__project"]
    search_fields = ["uid"]
    inlines = [
        RankingInline,
        ComparisonInline,
        RatingInline,
        EditInline,
        DemonstrationInline,
        DialogueInline,
        ReviewInline,
        RevisionInline,
    ]


@admin.register(Adjudication)
class AdjudicationAdmin(ProjectScoped):
    to_project = "task__project"
    list_display = ["__str__", "reviewer", "submission", "reason", "created_at"]
    list_filter = [("task__project", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["reviewer__user", "reviewer__project", "submission"]


@admin.register(ProjectToken)
class ProjectTokenAdmin(ProjectScoped):
    """Tokens are made on the project's page, which shows their secret once."""

    list_display = ["name", "project", "created_at", "used_at", "revoked_at"]
    list_filter = [OF_PROJECT]
    list_select_related = ["project"]
    fields = ["project", "name", "membership", "created_at", "used_at", "revoked_at"]
    actions = ["revoke"]

    @admin.action(description="Revoke")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ProjectToken]) -> None:
        for token in queryset:
            project_token_revoke(token=token)
        self.message_user(request, "Revoked: nothing more comes by them.", messages.SUCCESS)


@admin.register(PersonalToken)
class PersonalTokenAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """Everybody's, also what has ended. Superusers see who was let in, and end what leaked."""

    list_display = ["name", "user", "may_write", "created", "used_at", "expiry", "revoked_at"]
    list_filter = ["may_write", ("user", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["user"]
    search_fields = ["name", "user__username", "token_key"]
    fields = [
        *("name", "user", "token_key", "may_write", "days", "created"),
        *("used_at", "expiry", "replaced_at", "revoked_at"),
    ]
    show_full_result_count = False
    actions = ["revoke"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    @admin.action(description="Revoke")
    def revoke(self, request: HttpRequest, queryset: QuerySet[PersonalToken]) -> None:
        for token in queryset:
            personal_token_revoke(token=token)
        self.message_user(request, "Revoked: nobody is let in by them any more.", messages.SUCCESS)


@admin.register(TaskForm)
class TaskFormAdmin(ProjectScoped):
    list_display = ["kind", "project", "settings"]
    list_filter = [OF_PROJECT, "kind"]
    list_select_related = ["project"]


@admin.register(Membership)
class MembershipAdmin(ProjectScoped):
    list_display = ["user", "project", "role", "source", "removed_at"]
    list_filter = [OF_PROJECT, "role", "source"]
    list_select_related = ["user", "project"]
    search_fields = ["user__username", "uid"]


@admin.register(PreferenceDataset)
class PreferenceDatasetAdmin(ProjectScoped):
    list_display = ["__str__", "kind", "used", "excluded", "created_by", "created_at"]
    list_filter = [OF_PROJECT, "kind"]
    list_select_related = ["project", "artifact", "created_by"]
    actions = ["export_trl_jsonl", "export_trl_parquet", "export_rankings_jsonl", "verify"]

    @admin.display
    def used(self, dataset: PreferenceDataset) -> int:
        return int(dataset.counts["used"])

    @admin.display
    def excluded(self, dataset: PreferenceDataset) -> int:
        return sum(dataset.counts.get("excluded", {}).values())

    @admin.action(description="Download comparisons for TRL (JSON Lines)", permissions=["view"])
    def export_trl_jsonl(
        self, request: HttpRequest, queryset: QuerySet[PreferenceDataset]
    ) -> StreamingHttpResponse | None:
        return self._export(request, queryset, "trl", "jsonl")

    @admin.action(description="Download comparisons for TRL (Parquet)", permissions=["view"])
    def export_trl_parquet(
        self, request: HttpRequest, queryset: QuerySet[PreferenceDataset]
    ) -> StreamingHttpResponse | None:
        return self._export(request, queryset, "trl", "parquet")

    @admin.action(description="Download whole rankings (JSON Lines)", permissions=["view"])
    def export_rankings_jsonl(
        self, request: HttpRequest, queryset: QuerySet[PreferenceDataset]
    ) -> StreamingHttpResponse | None:
        return self._export(request, queryset, "rankings", "jsonl")

    @admin.action(description="Verify that nothing has changed", permissions=["view"])
    def verify(self, request: HttpRequest, queryset: QuerySet[PreferenceDataset]) -> None:
        for dataset in queryset:
            try:
                preference_dataset_verify(dataset=dataset)
                self.message_user(request, f"{dataset} is as it was frozen.", messages.SUCCESS)
            except (IntegrityError, RecordError) as error:
                self.message_user(request, f"{dataset}: {error}", messages.ERROR)

    def _export(
        self,
        request: HttpRequest,
        queryset: QuerySet[PreferenceDataset],
        layout: str,
        format: str,
    ) -> StreamingHttpResponse | None:
        datasets = list(queryset[:2])
        if len(datasets) != 1:
            self.message_user(request, "Choose one dataset to download.", messages.ERROR)
            return None
        try:
            return dataset_export_response(dataset=datasets[0], layout=layout, format=format)
        except ApplicationError as error:
            self.message_user(request, error.message, messages.ERROR)
            return None
