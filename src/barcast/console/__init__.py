"""The web console for those who approve: challengers beside champions, evidence, decisions, history, health."""

from barcast.console.access import Access
from barcast.console.app import create_app

__all__ = ["create_app", "Access"]
