"""Pages that clean a corpus, below modelhub's own of corpora."""

from django.urls import path

from alignment import corpus_views

urlpatterns = [
    path("corpora/<str:run_uid>/rules/", corpus_views.corpus_rules, name="corpus_rules"),
    path("corpora/<str:run_uid>/clean/", corpus_views.corpus_clean, name="corpus_clean"),
]
