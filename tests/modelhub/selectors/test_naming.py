"""What people call an artifact: what it is of and how much, told apart by when and by which run."""

from django.db import connection
from django.test.utils import CaptureQueriesContext

from modelhub.models import Artifact, Run, RunInput, RunOutput
from modelhub.selectors.naming import NAMED, artifact_title, output_name, output_title
from modelhub.selectors.runs import run_inputs
from tests import builders


def output_make(program, kind, result, *, role="", label="", config=None):
    run = Run.objects.create(
        program=program, config=config or {}, label=label, status="succeeded", result=result
    )
    return RunOutput.objects.create(
        run=run, role=role or kind, artifact=builders.make_artifact(kind)
    )


def corpus_make(**result):
    return output_make("import_corpus", "corpus", {"source": "poems", "documents": 1200, **result})


def test_a_corpus_is_called_by_its_source_and_a_cleaned_one_by_what_was_done(db):
    assert output_title(corpus_make()) == "poems: 1,200 documents"
    assert output_title(corpus_make(documents=1)) == "poems: 1 document"
    result = {"source": "poems", "documents": 900, "documents_before": 1200}
    by_rules = output_make("clean_corpus", "corpus", result, config={"families": ["gopher", "c4"]})
    assert output_title(by_rules) == "poems, cleaned by gopher, c4: 900 of 1,200 documents"
    alone = output_make("clean_corpus", "corpus", result, config={"families": []})
    assert output_title(alone) == "poems, cleaned by duplicates alone: 900 of 1,200 documents"
    saved = output_make("clean_corpus", "corpus", result, config={"rule_set": "strict@2"})
    assert output_title(saved).startswith("poems, cleaned by strict@2:")


def test_tokenizers_and_token_sets_have_names(db):
    result = {"algorithm": "bpe", "vocabulary": 8192, "fertility": [{"source": "poems"}] * 2}
    tokenizer = output_make("train_tokenizer", "tokenizer", result)
    assert output_title(tokenizer) == "bpe of 8,192 on poems"
    tokens = output_make(
        "tokenise", "tokens", {"tokens": 140_823, "sources": [{"source": "poems"}]}
    )
    RunInput.objects.create(run=tokens.run, role="tokenizer", artifact=tokenizer.artifact)
    assert output_title(tokens) == "poems: 140.8 k tokens by bpe of 8,192 on poems"


def test_what_has_no_name_of_its_own_is_of_its_run_and_has_a_size(db):
    made = output_make("rejection", "demonstrations", {}, label="spring")
    made.artifact.size_bytes = 2048
    assert output_title(made) == "demonstrations of spring, 2.0\xa0KB"
    assert output_title(output_make("train_tokenizer", "tokenizer", {})).startswith("tokenizer of")


def test_two_of_one_title_are_told_apart(db):
    first, second = output_name(corpus_make()), output_name(corpus_make())
    assert first != second
    assert first.startswith("poems: 1,200 documents · 20")


def test_an_artifact_is_its_versions_or_what_its_run_made(db):
    version = builders.make_version("smol")
    assert artifact_title(version.artifact) == "smol v1"
    assert artifact_title(corpus_make().artifact) == "poems: 1,200 documents"
    assert artifact_title(builders.make_artifact(Artifact.Kind.PROMPTS)) == "prompts"


def test_names_of_many_cost_as_many_queries_as_of_one(db):
    def count():
        with CaptureQueriesContext(connection) as queries:
            found = RunOutput.objects.select_related("run", "artifact").prefetch_related(*NAMED)
            assert all(output_name(one) for one in found)
        return len(queries)

    def more():
        tokenizer = output_make("train_tokenizer", "tokenizer", {"algorithm": "bpe"})
        tokens = output_make("tokenise", "tokens", {"tokens": 5})
        RunInput.objects.create(run=tokens.run, role="tokenizer", artifact=tokenizer.artifact)
        return tokens.run

    run = more()
    one = count()
    for _ in range(3):
        more()
    assert count() == one
    assert artifact_title(run_inputs(run=run)[0].artifact) == "bpe of 0 on "
