"""What each pipeline step does, in plain Python; `components/` are only their kfp signatures.

    ingest → validate_bars → build_features → validate_features → materialize → build_dataset
    → train_universal → train_symbols | live_models → renew_models
    → evaluate → analyze → register → gate → promote → canary; record_outcome
    plan_search → search_settings → choose_settings; score; monitor

Each is called as `name(config_json, run_id, ...paths)`; one whose result is cached gets the data's content hash in
place of the run's name. A step is imported when it is asked for, so that none
pays for another's libraries.
"""

from __future__ import annotations

from barcast import lazy

_WHERE = {
    "ingest": "data",
    "validate_bars": "data",
    "build_features": "data",
    "backfill_features": "data",
    "validate_features": "data",
    "materialize": "store",
    "build_dataset": "store",
    "train_universal": "train",
    "train_symbols": "train",
    "live_models": "renew",
    "renew_models": "renew",
    "plan_search": "search",
    "search_settings": "search",
    "choose_settings": "search",
    "score": "score",
    "monitor": "watch",
    "evaluate": "judge",
    "analyze": "slices",
    "register": "govern",
    "gate": "govern",
    "promote": "govern",
    "canary": "answer",
    "record_outcome": "answer",
}

__getattr__ = lazy.attributes(__name__, _WHERE)
