"""Rondo's settings, read once from the environment.

With nothing set this is the embedded default: one machine, SQLite, a folder for everything
(`RONDO_DATA_DIR`, `var/`). Each "many machines" choice is one variable, listed in docs/settings.md.
`RONDO_PRODUCTION=1` turns the secure settings on and refuses to start without a real secret key.
"""

from pathlib import Path
from typing import Any

import environ
from csp.constants import NONCE, NONE, SELF

from config.logs import format_of, logging_config
from config.secrets import secret_key_read

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent

PRODUCTION: bool = env.bool("RONDO_PRODUCTION", default=False)
DEBUG: bool = env.bool("RONDO_DEBUG", default=False)
DATA_DIR = Path(env.str("RONDO_DATA_DIR", default=str(BASE_DIR / "var"))).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
SECRET_KEY = secret_key_read(
    given=env.str("RONDO_SECRET_KEY", default=""), data_dir=DATA_DIR, production=PRODUCTION
)
ALLOWED_HOSTS: list[str] = env.list(
    "RONDO_ALLOWED_HOSTS", default=[] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]"]
)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("RONDO_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "config.admin_site.RondoAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "django_htmx",
    "template_partials",
    "rest_framework",
    "drf_spectacular",
    "knox",
    "modelhub",
    "annotation",
    "alignment",
    "config",
]

MIDDLEWARE = [
    "config.turns.TurnsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.headers.SecurityHeadersMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "config.storable.StorableTextMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "config.session_lifetime.SessionLifetimeMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Database. SQLite must take its write lock when a transaction begins: with Django's default
# (DEFERRED), eight writers meet hundreds of "database is locked" errors; with IMMEDIATE, none.
DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db("RONDO_DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'rondo.sqlite3'}")
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A thread keeps its connection: opening one reads the whole schema. PostgreSQL has its pool.
    DATABASES["default"]["CONN_MAX_AGE"] = None
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 60,
        "init_command": (
            "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA foreign_keys=ON;"
            "PRAGMA temp_store=MEMORY;PRAGMA cache_size=-5000;"
        ),
    }
else:
    DATABASES["default"]["OPTIONS"] = {
        "pool": {"min_size": 1, "max_size": env.int("RONDO_DATABASE_POOL", default=12)},
        # Of the statements of modelhub/prepared.py alone: Django's own come with their values in.
        "prepare_threshold": 1,
        "options": (
            "-c statement_timeout=30s -c lock_timeout=5s"
            " -c idle_in_transaction_session_timeout=60s -c synchronous_commit=on"
        ),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# People
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "config.backends.PersonBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "sign_in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign_in"
SIGN_IN_LINK_LIFETIME_S = 24 * 3600
# By address alone, one clumsy person would lock out everybody behind the same router.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = 0.25  # hours
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "registration/locked_out.html"
SESSION_ENGINE = "config.sessions"
SESSION_COOKIE_AGE = 7 * 24 * 3600
SESSION_IDLE_S = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"

# Language and time
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_I18N = True
FORMAT_MODULE_PATH = ["config.formats"]
USE_TZ = True

# Files
STATIC_URL = "static/"
STATIC_ROOT = Path(env.str("RONDO_STATIC_DIR", default=str(DATA_DIR / "static")))
STATICFILES_DIRS = [BASE_DIR / "config" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
MEDIA_ROOT = DATA_DIR / "media"
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o700
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 << 20
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000

# The model hub: where files live, which programs may run, how a run is owned.
ARTIFACTS_DIR = DATA_DIR / "artifacts"
RUNS_DIR = DATA_DIR / "runs"
IMPORT_ROOTS: list[Path] = [
    Path(p).resolve() for p in env.list("RONDO_IMPORT_ROOTS", default=[str(DATA_DIR / "import")])
]
# Folders that the hub's pages push versions to.
EXPORT_DIR = Path(env.str("RONDO_EXPORT_DIR", default=str(DATA_DIR / "export")))
# Where versions are pushed to by `hub_push … hub:NAME`; the key is in HF_TOKEN.
MODEL_HUB_ENDPOINT: str = env.str("RONDO_MODEL_HUB_ENDPOINT", default="https://huggingface.co")
# name → module; a run names a program, never a module, path or command.
RUN_PROGRAMS: dict[str, str] = {
    "import_model": "modelhub.ml.import_model",
    "import_corpus": "modelhub.ml.corpora.import_corpus",
    "clean_corpus": "modelhub.ml.corpora.clean_corpus",
    "train_tokenizer": "modelhub.ml.tokenising.train_tokenizer",
    "tokenise": "modelhub.ml.tokenising.tokenise",
    "import_questions": "alignment.ml.import_questions",
    "export_gguf": "modelhub.ml.export_gguf",
    "generate": "modelhub.ml.generate",
    "pretrain": "modelhub.ml.pretraining",
    "playground": "modelhub.ml.playground",
    "reward": "alignment.ml.reward",
    "reward_ensemble": "alignment.ml.reward_ensemble",
    "rejection": "alignment.ml.rejection",
    "sft": "alignment.ml.sft",
    "dpo": "alignment.ml.dpo",
    "kto": "alignment.ml.kto",
    "orpo": "alignment.ml.orpo",
    "distill": "alignment.ml.distill",
    "quantise": "alignment.ml.quantise",
    "merge_adapter": "alignment.ml.merge_adapter",
    "context_distillation": "alignment.ml.context_distillation",
    "ghost_attention": "alignment.ml.ghost_attention",
    "ppo": "alignment.ml.ppo",
    "rloo": "alignment.ml.online.rloo",
    "grpo": "alignment.ml.online.grpo",
    "online_dpo": "alignment.ml.online.dpo",
    "evaluate": "alignment.ml.evaluate",
    "judge": "alignment.ml.judge",
    "rate": "alignment.ml.rate",
    "revise": "alignment.ml.revise",
    "self_instruct": "alignment.ml.self_instruct",
}
# The configuration class of each, which says what a run's settings are and in which order.
RUN_CONFIGS: dict[str, str] = {
    "import_model": "modelhub.ml.configs.ImportModelConfig",
    "import_corpus": "modelhub.ml.corpora.configs.ImportCorpusConfig",
    "clean_corpus": "modelhub.ml.corpora.configs.CleanCorpusConfig",
    "train_tokenizer": "modelhub.ml.tokenising.configs.TrainTokenizerConfig",
    "tokenise": "modelhub.ml.tokenising.configs.TokeniseConfig",
    "import_questions": "alignment.ml.configs.ImportQuestionsConfig",
    "export_gguf": "modelhub.ml.configs.ExportGgufConfig",
    "generate": "modelhub.ml.configs.GenerateConfig",
    "pretrain": "modelhub.ml.pretraining.configs.PretrainConfig",
    "playground": "modelhub.ml.trials.PlaygroundConfig",
    "reward": "alignment.ml.configs.RewardConfig",
    "reward_ensemble": "alignment.ml.configs.EnsembleConfig",
    "rejection": "alignment.ml.configs.RejectionConfig",
    "sft": "alignment.ml.configs.SftConfig",
    "dpo": "alignment.ml.configs.DpoConfig",
    "kto": "alignment.ml.configs.KtoConfig",
    "orpo": "alignment.ml.configs.OrpoConfig",
    "distill": "alignment.ml.configs.DistillConfig",
    "quantise": "alignment.ml.configs.QuantiseConfig",
    "merge_adapter": "alignment.ml.configs.MergeAdapterConfig",
    "context_distillation": "alignment.ml.configs.ContextDistillationConfig",
    "ghost_attention": "alignment.ml.configs.GhostAttentionConfig",
    "ppo": "alignment.ml.configs.PpoConfig",
    "rloo": "alignment.ml.configs.RlooConfig",
    "grpo": "alignment.ml.configs.GrpoConfig",
    "online_dpo": "alignment.ml.configs.OnlineDpoConfig",
    "evaluate": "alignment.ml.configs.EvaluateConfig",
    "judge": "alignment.ml.configs.JudgeConfig",
    "rate": "alignment.ml.configs.RateConfig",
    "revise": "alignment.ml.configs.ReviseConfig",
    "self_instruct": "alignment.ml.configs.SelfInstructConfig",
}
# Called, by name, inside the transaction that marks a run of this program succeeded.
RUN_SUCCEEDED_HOOKS: dict[str, str] = {
    "import_model": "modelhub.services.imports.model_import_finish",
    "reward_ensemble": "alignment.services.ensembles.ensemble_finish",
    "judge": "alignment.services.judging.judge_finish",
    "rate": "alignment.services.judging.rate_finish",
    "revise": "alignment.services.judging.revise_finish",
    "self_instruct": "alignment.services.self_instruct.self_instruct_finish",
}
# Called in the same transaction for a run of any program that a person has launched.
RUN_LAUNCHED_HOOK = "alignment.services.launches.launched_run_finish"
# What a lineage is compared with above the hub: called with version=, each says what differs.
LINEAGE_CHECKS: list[str] = ["alignment.services.lineage.snapshots_compare"]
# What artifacts of a kind are called to a user by who knows what is in them: called with artifact=,
# user=, each gives words or "".
ARTIFACT_TITLES: dict[str, str] = {"prompts": "alignment.selectors.prompt_titles.prompts_title"}
# What people said of versions whose answers they judged: called with versions=, user=.
PEOPLE_VERDICTS = "annotation.version_verdicts.version_verdicts"
# Celery tasks sent when a run has ended: the apps above the hub take up their work at once.
RUN_ENDED_TASKS: list[str] = ["annotation.tasks.ingest_batches", "alignment.tasks.advance_rounds"]
RUN_LEASE_S = env.float("RONDO_RUN_LEASE_S", default=30)
RUN_HEARTBEAT_S = env.float("RONDO_RUN_HEARTBEAT_S", default=5)
RUN_ATTEMPTS = 3
# Servers of versions: where their logs lie, what is started, and how long one lives that no worker
# looks after (longer than a site takes to come back).
SERVERS_DIR = DATA_DIR / "servers"
SERVER_MODULE = "vllm.entrypoints.openai.api_server"
SERVER_LEASE_S = env.float("RONDO_SERVER_LEASE_S", default=120)
# A run is ended at this share of the memory of the worker's control group or machine; 0: never. In
# bytes of one run instead, where several workers share a machine.
RUN_MEMORY_SHARE = env.float("RONDO_RUN_MEMORY_SHARE", default=0.9)
RUN_MEMORY_BYTES = env.int("RONDO_RUN_MEMORY_BYTES", default=0)
RUN_CANCEL_GRACE_S = env.float("RONDO_RUN_CANCEL_GRACE_S", default=20)

# Annotation
ASSIGNMENT_LEASE_S = env.int("RONDO_ASSIGNMENT_LEASE_S", default=15 * 60)
# Shares of prompts, by content hash: train, validation, held-out.
PROMPT_SPLIT_SHARES = (0.75, 0.05, 0.20)

# Celery is the doorbell: the rows are the queue, so the embedded broker may lose a message.
CELERY_BROKER_URL = env.str("RONDO_BROKER_URL", default="filesystem://")
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    {
        "data_folder_in": str(DATA_DIR / "broker"),
        "data_folder_out": str(DATA_DIR / "broker"),
        "control_folder": str(DATA_DIR / "broker" / "control"),
        "polling_interval": 0.1,
    }
    if CELERY_BROKER_URL.startswith("filesystem")
    else {
        "visibility_timeout": 900,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A broker that is away must not keep a request waiting: the scheduler rings again.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.1,
    }
)
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"modelhub.tasks.execute_run": {"queue": "cpu"}}
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "reap runs": {"task": "modelhub.tasks.reap_runs", "schedule": 5.0},
    "ring queued runs": {"task": "modelhub.tasks.ring_queued_runs", "schedule": 5.0},
    "clean up": {"task": "modelhub.tasks.clean_up", "schedule": 3600.0},
    "scrub artifacts": {"task": "modelhub.tasks.scrub_artifacts", "schedule": 600.0},
    "expire assignments": {"task": "annotation.tasks.expire_assignments", "schedule": 30.0},
    "ingest candidate batches": {"task": "annotation.tasks.ingest_batches", "schedule": 10.0},
    "advance rounds": {"task": "alignment.tasks.advance_rounds", "schedule": 10.0},
}

# API
REST_FRAMEWORK = {
    # The token first: what is answered to whoever is nobody is 401, and says how to be somebody.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "annotation.api.personal_tokens.PersonalTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["config.json_parser.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "config.openapi.NamedSchema",
    "EXCEPTION_HANDLER": "config.api.error_response",
    # For each token of a project, and each web process.
    "DEFAULT_THROTTLE_RATES": {"feedback": env.str("RONDO_FEEDBACK_RATE", default="600/min")},
}
KNOX_TOKEN_MODEL = "annotation.PersonalToken"  # noqa: S105 - the name of a model
MIGRATION_MODULES = {"knox": None}  # its own table, of which nothing would ever be kept
REST_KNOX = {"AUTH_HEADER_PREFIX": "Bearer", "TOKEN_PREFIX": "rondo_me_"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Rondo",
    "VERSION": "1",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "ENUM_NAME_OVERRIDES": {
        "AssignmentState": "annotation.models.Assignment.State",
        "MemberRole": "annotation.models.Membership.Role",
        "RoundState": "alignment.models.Round.State",
    },
}

# Security
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
if PRODUCTION:
    SESSION_COOKIE_SECURE = True
    LANGUAGE_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    if env.bool("RONDO_BEHIND_PROXY", default=False):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOGGING = logging_config(
    level=env.str("RONDO_LOG_LEVEL", default="INFO"),
    format=format_of(given=env.str("RONDO_LOG_FORMAT", default=""), production=PRODUCTION),
)
