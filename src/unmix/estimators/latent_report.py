"""The page of a fitted ``LatentEstimator``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmix.report.html import ReportContent, render
from unmix.report.parts import write_html
from unmix.version import versions


def write_report(estimator: Any, path: Path) -> Path:
    """The report of a fitted estimator, as one HTML file."""
    content = ReportContent(
        method=type(estimator).__name__,
        assumption=estimator.assumption,
        uses_domains=estimator.uses_domains,
        feature_names=list(estimator.schema_.names),
        latent_names=[str(name) for name in estimator.get_feature_names_out()],
        domain_names=list(estimator.domains_),
        domain_columns=[column.describe() for column in estimator.domain_schema_.columns],
        description=estimator.description_,
        audit=estimator.audit(),
        counterfactuals=estimator.counterfactuals_,
        history=estimator.history_,
        restarts=estimator.restarts_,
        best_restart=estimator.best_restart_,
        support=estimator.support_,
        stop_reason=estimator.stop_reason_,
        sizes=dict(estimator.settings_),
        settings=estimator.fitted_params_,
        versions=versions(),
        tables={
            "mixing": estimator.mixing_frame().rename_axis("feature").reset_index(),
            "effects": estimator.effects_frame(),
            "restarts": estimator.restarts_,
            "history": estimator.history_,
            **(
                {} if estimator.counterfactuals_ is None else {"counterfactuals": estimator.counterfactuals_.to_frame()}
            ),
        },
        fit_seconds=estimator.fit_seconds_,
    )
    write_html(render(content), path)
    return path
