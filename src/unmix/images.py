"""What goes with models of images: reading them, grids of them, and how well they were translated."""

from unmix.bench.translation import compare_translations, judge_translations, train_judges
from unmix.data.images import ImageTable, read_images
from unmix.estimators.features import ImageClassifier, image_features
from unmix.report.images import image_grid

__all__ = [
    "ImageClassifier",
    "ImageTable",
    "compare_translations",
    "image_features",
    "image_grid",
    "judge_translations",
    "read_images",
    "train_judges",
]
