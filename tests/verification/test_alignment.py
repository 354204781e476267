"""That the checks move every array that several elements of are accessed at once, each by itself."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.backends.cuda import CudaBackend, batch_norm, bernoulli, dropout, gather, grids
from gpunet.verification.run import Verification, all_checks
from gpunet.verification.subject import Cuda
from tests.helpers.verification import SmallDevice

# The arrays of which one access moves several elements.
WIDE = {
    "bias and activation forward": {"s", "out"},
    "bias and activation backward": {"dy", "kept", "ds"},
    "batch norm forward": {"s", "out"},
    "batch norm backward": {"dy", "s", "ds"},
    "batch norm inference": {"s", "out"},
    "batch norm statistics": {"s"},
    "batch norm of a shard": {"s", "out"},
    "batch norm sums": {"dy", "s"},
    "batch norm input gradient": {"dy", "s", "ds"},
    "weight of a shard": {"doutputs"},
    "sum over shards": {"parts", "out"},
    "mean over shards": {"gradients"},
    "dropout forward": {"x", "out", "mask"},
    "dropout backward": {"dy", "mask", "dx"},
    "binary samples": {"probabilities", "out"},
    "softmax cross entropy": set(),
    "sigmoid cross entropy": set(),
    "squared error": set(),
    "clipping factor": {"parameters", "gradients"},
    "SGD step": {"parameters", "gradients", "velocity"},
    "Adam step": {"parameters", "gradients", "first_moment", "second_moment"},
    "rows of a batch": {"features", "batch_features", "targets", "batch_targets"},
}


@pytest.mark.parametrize("kind", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", WIDE)
def test_an_array_whose_alignment_no_plan_looks_at_is_found(
    what: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: plans that take every address for aligned. Each of the wide arrays then fails by itself."""
    for module in (batch_norm, bernoulli, dropout, gather, grids):
        monkeypatch.setattr(module, "is_aligned", lambda *_: True)
    device: Any = SmallDevice(compute_capability=(8, 0))  # which has no clusters: fewer ways
    subject = Cuda(lambda precision: CudaBackend(device, precision))
    checks = all_checks(subject, [what, kind, "past alignment by 1"])
    verification = Verification(subject, [check for check in checks if ", all past" not in check.name])
    verification.run(lambda done, said: None)
    # What a kernel that was ended leaves in the counters is found in the next checks, too.
    misaligned = [outcome for outcome in verification.outcomes if "misaligned address" in outcome.text]
    has_kernel = kind == "float32" or not what.endswith(("step", "factor", "over shards"))
    assert {outcome.check.detail.split()[-5] for outcome in misaligned} == (WIDE[what] if has_kernel else set())
