"""What CG-VAE is compared with: scikit-learn transformers, with those methods of ``CGVAE`` that they can have."""

from unmix.estimators.baselines import HFVAE, BetaTCVAE, BetaVAE, FactorVAE, SparseVAE
from unmix.estimators.domain_baselines import IMSDA, IVAE
from unmix.estimators.external import CEBRA
from unmix.estimators.linear import JointDiagonalization

__all__ = [
    "CEBRA",
    "HFVAE",
    "IMSDA",
    "IVAE",
    "BetaTCVAE",
    "BetaVAE",
    "FactorVAE",
    "JointDiagonalization",
    "SparseVAE",
]
