from unmix.metrics.recovery import mcc, nonlinear_mcc, r2
from unmix.metrics.information import mig, modularity
from unmix.metrics.score import Score
__all__ = ["Score", "mcc", "nonlinear_mcc","r2"]
