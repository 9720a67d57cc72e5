"""How well latents match true ones and one another, and images real ones. Takes arrays from any model, without torch.

| function | what it answers |
|---|---|
| `mcc` | is each true factor one latent, up to order, sign and scale? |
| `nonlinear_mcc` | … up to order and a curve? |
| `r2` | do all latents together determine each factor? High with low `mcc`: recovered only as a block |
| `dci` | does each latent matter to one factor, each factor to one latent, by the importances of a named regression? |
| `mig` | does one latent hold the information about a factor, and no second one? |
| `sap` | does one latent predict a factor, and no second one? |
| `modularity` | does each latent hold information about one factor only? |
| `explicitness` | can a linear classifier read each factor? |
| `factor_vae_score` | does the latent that varies least identify the factor that was fixed? |
| `beta_vae_score` | do differences of latents identify the factor that two rows share? |
| `irs` | does fixing one factor keep each latent constant in the worst case? |
| `udr` | do several runs find the same latents? No ground truth |
| `support_recovery` | which latents drive which features: is the support of the mixing right? |
| `fid`, `kid` | are generated images like real ones, for a named feature extractor? |
| `dipd` | do images that share the noise and differ in domain keep their content? |
| `content_accuracy`, `style_accuracy` | can a classifier read the content of translations, and their target domain? |

Each returns a `Score`: a float with values per factor, a bootstrap interval, the value by chance, details and settings.
Metrics of true factors and latents raise ``DataError`` unless both matrices have the same, at least four, finite rows;
a setting that is unknown or out of range is a ``SettingError``.
"""

from unmix.metrics.accuracy import content_accuracy, style_accuracy
from unmix.metrics.consistency import udr
from unmix.metrics.images import dipd, fid, kid
from unmix.metrics.importance import dci
from unmix.metrics.information import mig, modularity
from unmix.metrics.prediction import explicitness, sap
from unmix.metrics.recovery import mcc, nonlinear_mcc, r2
from unmix.metrics.sampling import beta_vae_score, factor_vae_score, irs
from unmix.metrics.score import Score
from unmix.metrics.support import support_recovery

__all__ = [
    "Score",
    "beta_vae_score",
    "content_accuracy",
    "dci",
    "dipd",
    "explicitness",
    "factor_vae_score",
    "fid",
    "irs",
    "kid",
    "mcc",
    "mig",
    "modularity",
    "nonlinear_mcc",
    "r2",
    "sap",
    "style_accuracy",
    "support_recovery",
    "udr",
]
