"""What was approved goes live and must answer.

Run at once by the pipelines that train when approval is automatic, by `barcast models approve` otherwise
(Kubeflow Pipelines has no pause for a person).
"""

from kfp import dsl

from components.canary.component import canary
from components.promote.component import promote
from pipelines.resources import light, stateful


@dsl.pipeline(
    name="barcast-promotion", description="Put approved versions live and ask them for a prediction."
)
def promotion(config: str, run_id: str):
    """Promote, then ask.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
    """
    live = stateful(light(promote(config=config, run_id=run_id)), models=True)
    stateful(light(canary(config=config, run_id=run_id, promoted=live.output)), models=True)
