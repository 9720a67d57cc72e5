"""What a fitted model and its data support: which latents are identified, and the arrays behind the report.

``Audit`` and ``Finding`` are what ``model.audit`` returns, ``CounterfactualCheck`` what ``model.check_counterfactuals``
does, ``Plan`` and ``Remedy`` what ``unmix.plan`` does.
"""

from unmix.audit.counterfactuals import CounterfactualCheck
from unmix.audit.finding import Finding
from unmix.audit.planning import Plan
from unmix.audit.remedies import Remedy
from unmix.audit.result import Audit

__all__ = ["Audit", "CounterfactualCheck", "Finding", "Plan", "Remedy"]
