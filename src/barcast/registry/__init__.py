"""Versions, approvals, what is live, and the ledger that explains it."""

from barcast.registry.fingerprint import Ask, Recorded
from barcast.registry.ledger import Entry, Finding, Ledger
from barcast.registry.metadata import VersionMetadata
from barcast.registry.registry import Registry

__all__ = ["Registry", "VersionMetadata", "Recorded", "Ask", "Ledger", "Entry", "Finding"]
