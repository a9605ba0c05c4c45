r"""How good detections and maps are, with intervals.

The table value of the paper is the F1 of each concept, weighted by the number :math:`n_c` of
samples that hold it,

.. math:: F = \frac{\sum_c n_c F_c}{\sum_c n_c}, \qquad
          F_c = \frac{2 TP_c}{2 TP_c + FP_c + FN_c},

and its error bars are 95 % percentile bootstrap intervals over samples, with all concepts
resampled together (Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism", section on
evaluation). The same formula over tokens judges SuperActivators and thresholded maps as a
localization; so do IoU, average precision and the pointing game, weighted in the same way.
"""

from skact.metrics._bootstrap import Interval, bootstrap_interval
from skact.metrics._overlap import concept_iou, token_f1_score, token_iou_score, weighted_f1_score
from skact.metrics._ranking import keep_pairs, pointing_game_score, token_average_precision_score
from skact.metrics._samples import all_positive_f1_score, tpr_at_fpr_score
from skact.metrics._scorers import (
    TokenScorer,
    pointing_game_scorer,
    token_average_precision_scorer,
    token_f1_scorer,
    token_iou_scorer,
)

__all__ = [
    "Interval",
    "TokenScorer",
    "all_positive_f1_score",
    "bootstrap_interval",
    "concept_iou",
    "keep_pairs",
    "pointing_game_score",
    "pointing_game_scorer",
    "token_average_precision_score",
    "token_average_precision_scorer",
    "token_f1_score",
    "token_f1_scorer",
    "token_iou_score",
    "token_iou_scorer",
    "tpr_at_fpr_score",
    "weighted_f1_score",
]
