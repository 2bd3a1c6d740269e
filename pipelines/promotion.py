"""What was approved goes live and must answer; or an earlier good version comes back.

Run at once by the pipelines that train when approval is automatic, by `barcast models approve` otherwise
(Kubeflow Pipelines has no pause for a person), and by `barcast models rollback --host`: on a cluster only pods of such
runs may write served models.
"""

from kfp import dsl

from components.canary.component import canary
from components.promote.component import promote
from pipelines.resources import light, stateful


@dsl.pipeline(
    name="barcast-promotion",
    description="Put approved versions live, or an earlier one back, and ask them for a prediction.",
)
def promotion(config: str, run_id: str, rollback: str = "", to: int = 0, by: str = "", reason: str = ""):
    """Promote or roll back, then ask.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        rollback: the symbol (or `universal`, `_linear`, `_ensemble`) whose earlier version serves again; empty: all
            approved versions go live.
        to: the version that a rollback goes to; 0: the last good one.
        by: who rolls back.
        reason: why it is rolled back.
    """
    moved = promote(config=config, run_id=run_id, rollback=rollback, to=to, by=by, reason=reason)
    live = stateful(light(moved), models=True)
    stateful(light(canary(config=config, run_id=run_id, promoted=live.output)), models=True)
