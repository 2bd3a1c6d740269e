"""The HTTP door: predictions, models, feedback, account, metrics, and a stream, behind keys and limits."""

from barcast.serving.gateway.app import create_app

__all__ = ["create_app"]
