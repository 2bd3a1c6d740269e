"""Watching: drift, calibration, concept drift, data, serving, queue; alerts; retraining and rollback by policy."""

from barcast.operations.monitoring.alerts import ALERTS
from barcast.operations.monitoring.history import History
from barcast.operations.monitoring.look import Monitor, monitor
from barcast.operations.monitoring.types import Action, Alert, ModelReport, Reading, Report

__all__ = ["ALERTS", "Action", "Alert", "History", "ModelReport", "Monitor", "Reading", "Report", "monitor"]
