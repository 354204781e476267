"""Where the lecture's text is wrong, garbled or ambiguous, and what gpunet does instead.

docs/lecture.md and the page that ``gpunet lecture all`` writes list these sentences word for word.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Correction(NamedTuple):
    """One place of the lecture: the rows it concerns, ``"L4, L6"``, and what the text has and what is meant."""

    rows: str
    text: str


_TEXT = """
L3: The slope of leaky ReLU is .1 on one slide and .01 on another: a parameter here, .01 by default.
L3: At s = 0 the derivatives take the left-hand branch: 0 for ReLU, the slope for leaky ReLU, alpha for ELU.
L4: The gradient of the L2 term is 2 lambda W throughout; one slide has lambda W. weight_decay elsewhere is 2 lambda.
L4: L2 applies to the W_i only, not to biases, gamma or beta.
L4: One slide sums the losses and the algorithm divides by |D|: the mean is meant, and with weights w_i it is sum_i w_i
  l_i / sum_i w_i.
L4, L6: g = -(y^T / y^T p)(diag(p) - p p^T) is (p - y)^T for a one-hot y; that is what is computed, with the softmax
  shifted by the row's maximum.
L6: dJ/db_1 is 1 x m, not 1 x d.
L6: The slide on ds_1/dvec(W_1) names J as the child; it is W_1. vec(W) stacks rows: the slide's x_{j-(i-1)d} fixes
  that.
L7: Aggregated backward pass: dJ/dW_i takes x^(i-1), not x^(i); after g = g W_i, the mask is that of s^(i-1), not s^(i).
L9: The perceptron answers 1 or 0 while its labels are 1 and -1: here it answers with the label of either class, and y
  is 1 or -1 in the update. The slide updates w only; b goes along, b <- b + y. A score of exactly 0, where the loss is
  0, counts as a mistake, or nothing would leave w = 0.
L10: ADALINE's update absorbs the factor 2 of the squared loss's gradient into eta.
L12: The slide with Rumelhart, Hinton and Williams's derivation is garbled: the paper has Delta_p w_ji = eta delta_pj
  o_pi, with E_p = 1/2 sum_j (t_pj - o_pj)^2.
L19: N(w; 0, .01^2) gives a variance; Xavier's "1/sqrt(500)" is a standard deviation.
L19: With N(0, 1) weights in the tanh network the gradients are said to be all zero. Almost every factor tanh'(s) of the
  backward pass is near 0, but the few that are not are enough, for the weights have size 1: the gradients grow, about
  7e4-fold from layer 10 to layer 1.
L24: In the last slides some hats are lost: the first factor of each term of dJ/ds_i is dJ/dshat_i. The matrix form of
  dshat_i/dv_b lacks diag(s_i - mu_b), and dmu_b/ds_i = 1/n lacks I_m. The sum in dv_b/dmu_b is zero.
"""

CORRECTIONS = tuple(
    Correction(*" ".join(place.split()).split(": ", 1)) for place in re.split(r"\n(?=L\d)", _TEXT.strip())
)
