"""A project, the people in it, and what lets somebody or something in."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from knox.models import AbstractAuthToken

from modelhub.models import Identified, uid_new


class Project(Identified):
    """A body of prompts and the people who judge the answers to them."""

    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)

    class Order(models.TextChoices):
        PRIORITY = "priority", _("by priority, oldest first")
        RANDOM = "random", _("at random")
        LEAST_COVERED = "least_covered", _("those that fewest people have judged")
        DOUBT = "doubt", _("those the reward model is least sure of")

    queue_order = models.CharField(max_length=20, choices=Order.choices, default=Order.PRIORITY)
    gold_share = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(0.5)],
        help_text="the share of handed-out tasks whose answer is known, mixed in secretly",
    )
    qualification_pass = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="the mean score on the qualification tasks that admits to real work",
    )
    mirrored_share = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(0.5)],
        help_text="the share of handed-out tasks that are a pair of one's own, sides swapped",
    )
    skips_to_review = models.PositiveSmallIntegerField(
        default=3, help_text="people who skip a task before a reviewer looks at it; 0 for never"
    )
    overlap = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(50)],
        help_text="how many people judge each task",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(Identified):
    """A person's role in a project. Its `uid` is the pseudonym that exports carry."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", _("annotator")
        REVIEWER = "reviewer", _("reviewer")
        MANAGER = "manager", _("manager")

    class Source(models.TextChoices):
        PERSON = "person", _("a person")
        SIMULATED = "simulated", _("a simulated annotator")
        MODEL = "model", _("a judge model")
        PRODUCT = "product", _("the users of a product")

    PROGRAMS = (Source.SIMULATED, Source.MODEL)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=20, choices=Role.choices, default=Role.ANNOTATOR)
    source = models.CharField(
        max_length=20,
        choices=Source.choices,
        default=Source.PERSON,
        help_text="whose judgement it is: every label carries it, for ever",
    )
    qualified_at = models.DateTimeField(
        null=True, blank=True, help_text="passed the qualification test, or was let in without it"
    )
    removed_at = models.DateTimeField(
        null=True, blank=True, help_text="left the project; the work stays, the access is gone"
    )
    guideline_read = models.PositiveIntegerField(
        default=0, help_text="the newest version of the guidelines that they opened; 0 for none"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_unique")
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}) in {self.project}"

    @property
    def is_simulated(self) -> bool:
        """Whether a program labels here and not a person."""
        return self.source in self.PROGRAMS

    @property
    def shown_name(self) -> str:
        """The user name; of a product, which has none to be read, the name of its token."""
        is_product = self.source == self.Source.PRODUCT
        return (is_product and self.user.first_name) or self.user.get_username()


class KeyBindings(models.Model):
    """The keys that one person has changed on the annotator's page, in every project.

    `keys` are those that differ from annotation/desk_keys.py: {"<action>": "<key>", …}.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    keys = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "key bindings"

    def __str__(self) -> str:
        return f"keys of {self.user}"


class SignInLink(models.Model):
    """A link that signs one person in, once. Only its digest is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    token_sha256 = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"sign-in link for {self.user}"


class Guideline(Identified):
    """One version of a project's instructions to annotators."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guidelines")
    number = models.PositiveIntegerField()
    text = models.TextField()
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["project", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="guideline_number_unique")
        ]

    def __str__(self) -> str:
        return f"guidelines {self.number} of {self.project}"


class PersonalToken(AbstractAuthToken):  # type: ignore[misc]  # knox brings no types
    """Lets a script of one person's use the API as that person. Only its digest is stored."""

    uid = models.CharField(max_length=32, unique=True, default=uid_new, editable=False)
    name = models.CharField(max_length=120)
    may_write = models.BooleanField(help_text="or only read")
    days = models.PositiveSmallIntegerField(help_text="that it was made for")
    session_hash = models.CharField(
        max_length=128, help_text="of the person's password when it was made: another one ends it"
    )
    used_at = models.DateTimeField(null=True, blank=True)
    replaced_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.name


class ProjectToken(Identified):
    """Lets a product send its users' feedback to one project. Only the token's digest is stored."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=120)
    token_sha256 = models.CharField(max_length=64, unique=True)
    membership = models.ForeignKey(
        Membership, on_delete=models.PROTECT, related_name="+", help_text="as whom it submits"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class Notification(Identified):
    """A line for one person: a question asked or answered, work sent back."""

    recipient = models.ForeignKey(
        Membership, on_delete=models.CASCADE, related_name="notifications"
    )
    text = models.CharField(
        max_length=300, help_text="in English, with %(name)s where a value stands"
    )
    values = models.JSONField(default=dict, blank=True)
    path = models.CharField(max_length=300, help_text="the page it is about, from /")
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["recipient"], name="notification_unread", condition=Q(read_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return self.line

    @property
    def line(self) -> str:
        """What it says, in the language of its reader; as it was written where it has no values."""
        return gettext(self.text) % self.values if self.values else self.text
