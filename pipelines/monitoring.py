"""Do data and models still hold? What does not leads to a retraining request, a rollback or a recalibration."""

from kfp import dsl

from components.ingest.component import ingest
from components.monitor.component import monitor
from components.record_outcome.component import record_outcome
from pipelines.resources import light, stateful
from pipelines.retraining import renewal


@dsl.pipeline(
    name="barcast-monitoring", description="Drift, quality, calibration, degradation; what follows."
)
def monitoring(config: str, run_id: str):
    """Look, act, and calibrate again what needs no more than that.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
    """
    with dsl.ExitHandler(light(record_outcome(config=config, run_id=run_id)), name="run"):
        bars = stateful(light(ingest(config=config, run_id=run_id)))
        seen = stateful(light(monitor(config=config, run_id=run_id).after(bars)), models=True)
        with dsl.If(seen.outputs["Output"] == "recalibrate", name="recalibration"):
            renewal(config=config, run_id=run_id, models=seen.outputs["models"], mode="recalibrate")
