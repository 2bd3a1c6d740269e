"""Every alert there is: its name, how serious it is, what it means.

`docs/guides/runbook.md` has a section for each name, and the cluster's Prometheus rules use the same names
(a test compares the three).
"""

from __future__ import annotations

from dataclasses import dataclass

from barcast.operations.monitoring.types import Severity


@dataclass(frozen=True)
class Meaning:
    """One alert of the catalogue."""

    severity: Severity
    means: str


ALERTS: dict[str, Meaning] = {
    # data
    "BarsLate": Meaning("critical", "Bars that should have closed by now are not in the table."),
    "BarsMissing": Meaning("warning", "Too many expected bars are missing between the others."),
    "BarsFromFuture": Meaning("critical", "Bars close after this machine's clock: one of the two is wrong."),
    "FeaturesStale": Meaning("critical", "The online store's features are older than the newest bar."),
    "FeatureDrift": Meaning("warning", "More features moved away from training than its own windows did."),
    # models
    "PredictionDrift": Meaning("warning", "A model's answers are distributed otherwise than they were."),
    "CalibrationDrift": Meaning("warning", "A model's probabilities are too sure, or not sure enough."),
    "ConceptDrift": Meaning("warning", "A model's loss on known outcomes rose and stayed high."),
    "ModelHarmful": Meaning("critical", "A model is surely worse than constant class shares."),
    # serving
    "FallbackShareHigh": Meaning("critical", "Many answers come from a fallback and not from their model."),
    "ModelServerDown": Meaning("critical", "No model server answers; predictions come from fallbacks."),
    "ModelServerErrors": Meaning("warning", "More than the allowed share of its requests fail."),
    "GatewayErrors": Meaning("warning", "More than the allowed share of the gateway's requests fail."),
    "PredictionsSlow": Meaning("warning", "The slowest predictions take longer than allowed."),
    "BreakerOpen": Meaning("critical", "The circuit breaker keeps requests away from the model server."),
    "PredictionLogFailing": Meaning("critical", "Answers are given and cannot be recorded."),
    # work
    "QueueWaits": Meaning("warning", "Trainings are due and no worker takes them."),
    "DeadLetters": Meaning("warning", "Trainings failed so often that they were given up."),
    "QueueUnreachable": Meaning("critical", "The training queue's database does not answer."),
    "ScheduleFailed": Meaning("warning", "The last run of a schedule failed."),
    "RegistryInconsistent": Meaning("critical", "Ledger, served files and models.config disagree."),
    "DiskLow": Meaning("critical", "The disk is nearly full."),
    "MonitoringFailed": Meaning("critical", "A part of monitoring itself could not be read."),
    "MonitoringStopped": Meaning("critical", "Monitoring has not looked for three of its pauses."),
}
