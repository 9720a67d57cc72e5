"""What a fitted model and its data support: which latents are identified, and the arrays behind the report.

``Audit``, ``Finding`` and ``Note`` are what ``model.audit`` returns, ``CounterfactualCheck`` what
``model.check_counterfactuals`` does, ``Novelty`` what ``model.novelty`` does, ``Plan`` and ``Remedy`` what
``unmix.plan`` does.
"""

from unmix.audit.counterfactuals import CounterfactualCheck
from unmix.audit.finding import Finding
from unmix.audit.notes import Note
from unmix.audit.novelty import Novelty
from unmix.audit.planning import Plan
from unmix.audit.remedies import Remedy
from unmix.audit.result import Audit

__all__ = ["Audit", "CounterfactualCheck", "Finding", "Note", "Novelty", "Plan", "Remedy"]
