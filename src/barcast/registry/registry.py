"""The registry as other rooms use it: one object, one method for each thing that can be done.

`symbol` is everywhere a symbol with a model of its own, None (or "universal") for the universal model, "_ensemble", or
"_linear" for the baseline. Versions are MLflow's numbers and the names of the served directories.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from barcast import names
from barcast.evaluation.gate_types import History
from barcast.registry import approvals, audit, promotion, registration, traffic, trials
from barcast.registry.changing import Changing
from barcast.registry.fingerprint import Ask, Recorded
from barcast.registry.ledger import Finding
from barcast.registry.metadata import VersionMetadata
from barcast.registry.state import Model

# `Registry.list` hides the builtin inside the class.
Rows = list[dict[str, Any]]
Findings = list[Finding]
Words = list[str]


class Registry(Changing):
    """Versions, decisions and what is live in one workspace.

    Args:
        workspace: where state lies.
        config: the whole configuration, or its `registry` section.
        approval: `automatic` or `manual`; taken from the whole configuration where not given.
    """

    def register(
        self,
        model_dir: Path,
        symbol: str | None,
        metadata: VersionMetadata | Mapping[str, Any],
        files: Mapping[str, Path | str] | None = None,
        recorded: Recorded | None = None,
    ) -> int:
        """Make a version from an exported folder; see `registration.register`."""
        return registration.register(self, Path(model_dir), symbol, metadata, files, recorded)

    def judge(self, symbol: str | None, version: int, verdict: Any) -> None:
        """Record the gate's verdict; see `approvals.judge`."""
        approvals.judge(self, symbol, version, verdict)

    def keep_report(self, symbol: str | None, version: int, report: Path) -> None:
        """Put the report with the verdicts beside the version; see `approvals.keep_report`."""
        approvals.keep_report(self, symbol, version, report)

    def report(self, symbol: str | None, version: int, folder: Path) -> Path:
        """Fetch the newest report of a version into `folder`; see `approvals.report_of`."""
        return approvals.report_of(self, symbol, version, folder)

    def set_challenger(self, symbol: str | None, version: int) -> None:
        """Let a judged version wait for approval; see `approvals.set_challenger`."""
        approvals.set_challenger(self, symbol, version)

    def approve(self, symbol: str | None, *, by: str, reason: str, version: int | None = None) -> int:
        """Approve the challenger; see `approvals.approve`."""
        return approvals.approve(self, symbol, by, reason, version)

    def approve_automatically(self, symbol: str | None, version: int | None = None) -> int:
        """Approve by the configured policy; see `approvals.approve_automatically`."""
        return approvals.approve_automatically(self, symbol, version)

    def reject(self, symbol: str | None, *, by: str, reason: str, version: int | None = None) -> int:
        """Reject the challenger; see `approvals.reject`."""
        return approvals.reject(self, symbol, by, reason, version)

    def promote(
        self,
        symbol: str | None,
        version: int | None = None,
        *,
        by: str = "",
        reason: str = "",
        ask: Ask | None = None,
        run: str = "",
    ) -> int:
        """Serve the approved challenger; see `promotion.promote`."""
        return promotion.promote(self, symbol, version, by=by, reason=reason, ask=ask, run=run)

    def confirm(self, symbol: str | None, version: int, ask: Ask) -> dict[str, float]:
        """Compare a served answer with the recorded one; see `promotion.confirm`."""
        return promotion.confirm(self, symbol, version, ask)

    def rollback(
        self,
        symbol: str | None,
        to_version: int | None = None,
        *,
        by: str,
        reason: str,
        ask: Ask | None = None,
        away_from: int | None = None,
    ) -> int:
        """Serve an earlier good version; see `promotion.rollback`."""
        return promotion.rollback(
            self, symbol, to_version, by=by, reason=reason, ask=ask, away_from=away_from
        )

    def rollback_automatically(
        self,
        symbol: str | None,
        *,
        reason: str,
        evidence: dict[str, Any] | None = None,
        ask: Ask | None = None,
        version: int | None = None,
    ) -> int | None:
        """Rollback on degradation, by policy; see `promotion.rollback_automatically`."""
        return promotion.rollback_automatically(
            self, symbol, reason=reason, evidence=evidence, ask=ask, version=version
        )

    def retire(self, symbol: str | None, *, by: str, reason: str) -> None:
        """Take a model out of service; see `promotion.retire`."""
        promotion.retire(self, symbol, by=by, reason=reason)

    def set_traffic(
        self,
        symbol: str | None,
        version: int,
        *,
        mode: str,
        share: float = 0.1,
        by: str,
        reason: str,
        ask: Ask | None = None,
    ) -> None:
        """Give a challenger a copy or a share of the requests; see `traffic.set_traffic`."""
        traffic.set_traffic(self, symbol, version, mode=mode, share=share, by=by, reason=reason, ask=ask)

    def clear_traffic(self, symbol: str | None, *, by: str, reason: str) -> None:
        """End shadow or A/B."""
        traffic.clear_traffic(self, symbol, by=by, reason=reason)

    def traffic(self) -> dict[str, dict[str, Any]]:
        """The routing policy by model name."""
        return {name: model.traffic for name, model in self.state().models.items() if model.traffic}

    def incumbent(self, symbol: str | None) -> tuple[str, int, str] | None:
        """What answers for `symbol` now, as (model, version, kind): its own champion, else the ensemble, else
        the universal one, else the baseline; None when nothing is live."""
        state = self.state()
        for word in (symbol, names.ENSEMBLE, None, names.LINEAR):
            model = state.models.get(self.model_name(word))
            if model is not None and model.champion is not None:
                return model.name, model.champion, model.versions[model.champion].kind
        return None

    def list(self) -> Rows:
        """One row a model: what is live, what waits, how it did. Read from the ledger alone."""
        return [self._row(model) for model in sorted(self.state().models.values(), key=lambda m: m.name)]

    def _row(self, model: Model) -> dict[str, Any]:
        champion = model.versions[model.champion] if model.champion is not None else None
        challenger = model.versions[model.challenger] if model.challenger is not None else None
        span = (
            audit.spans(model)[-1] if model.changes else None
        )  # of this champion: traffic changes nothing here
        return {
            "model": model.name,
            "symbol": names.word_of(model.name),
            "champion": model.champion,
            "kind": champion.kind if champion else None,
            "since": span["since"].isoformat() if span else None,
            "by": span["by"] if span else None,
            "challenger": model.challenger,
            "challenger_status": challenger.status if challenger else None,
            "verdict": challenger.judged.details["outcome"] if challenger and challenger.judged else None,
            "labels": dict(model.labels),
            "traffic": dict(model.traffic),
            "num_versions": len(model.versions),
            "reliability": champion.registered.details.get("reliability") if champion else None,
        }

    def show(self, symbol: str | None, version: int | None = None) -> dict[str, Any]:
        """Everything about one version (the champion, else the challenger, else the newest, where not given):
        what the ledger says and what MLflow holds."""
        model = self.model(self.state(), symbol)
        number = version or model.champion or model.challenger or max(model.versions)
        found = self.version(model, number)
        info = self.tracking.version(model.name, number)
        details = dict(found.registered.details)
        return {
            "model": model.name,
            "version": number,
            "status": found.status,
            "labels": sorted(k for k, v in model.labels.items() if v == number),
            "registered": found.registered.time.isoformat(),
            "verdict": found.judged.details if found.judged else None,
            "decided": self.entry_dict(found.decided) if found.decided else None,
            "run_id": info.run_id,
            "metrics": info.metrics,
            "parameters": info.parameters,
            **{
                k: details[k]
                for k in ("kind", "data_version", "data_hash", "config_hash", "code_version", "digest")
            },
            "parent": details["parent"],
            "reliability": details["reliability"],
            "model_card": info.description,
        }

    def card(self, symbol: str | None, version: int) -> str:
        """The whole model card in Markdown (MLflow's description of the version is cut at 5000
        characters)."""
        with tempfile.TemporaryDirectory(prefix="barcast-card-") as folder:
            return (self.evidence(symbol, version, Path(folder)) / "model_card.md").read_text(
                encoding="utf-8"
            )

    def evidence(self, symbol: str | None, version: int, folder: Path) -> Path:
        """Fetch a version's evidence (report, card, environment, ...) into `folder`; returns where it lies."""
        return self.tracking.fetch(self.model_name(symbol), version, "evidence", folder)

    def history(self, symbol: str | None, day: date | None = None) -> Rows:
        """All ledger lines of `symbol`'s model; with `day`, what answered for the symbol that day and who decided."""
        if day is not None:
            return audit.served_on(self, symbol, day)
        return [self.entry_dict(entry) for entry in audit.history(self, symbol)]

    def count_trial(self, study: str, number: int) -> None:
        """Write down that a trial of a search begins; see `trials.record`."""
        trials.record(self, study, number)

    def num_trials(self, symbol: str | None) -> int:
        """Configurations tried so far for `symbol`'s model; see `trials.count`."""
        return trials.count(self, symbol)

    def life(self, symbol: str | None, *, but: int | None = None) -> History:
        """Earlier verdicts and tried configurations of `symbol`'s model, for the gate; see `trials.life`."""
        return trials.life(self, symbol, but=but)

    def verify(self, *, mlflow: bool = True) -> Findings:
        """Every inconsistency found; empty when all is well."""
        return audit.verify(self, mlflow=mlflow)

    def repair(self, symbol: str | None, *, by: str, reason: str) -> Words:
        """Restore what the ledger says; see `audit.repair`."""
        return audit.repair(self, symbol, by=by, reason=reason)
