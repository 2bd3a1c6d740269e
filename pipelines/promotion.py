"""What was approved goes live and must answer.

Run at once by the training pipeline when approval is automatic, by `barcast models approve` otherwise
(Kubeflow Pipelines has no pause for a person).
"""

from kfp import dsl

from components.canary.component import canary
from components.promote.component import promote


@dsl.pipeline(
    name="barcast-promotion", description="Put approved versions live and ask them for a prediction."
)
def promotion(config: str, run_id: str):
    """Promote, then ask.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
    """
    live = promote(config=config, run_id=run_id)
    live.set_caching_options(False)
    canary(config=config, run_id=run_id, promoted=live.output).set_caching_options(False)
