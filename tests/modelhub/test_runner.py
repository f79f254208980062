from modelhub.models import Run
from modelhub.runner import run_execute


def test_a_run_succeeds_with_its_outputs_metrics_and_progress(counting):
    run = counting(steps=4)
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
