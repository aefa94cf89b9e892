"""From verdicts to numbers: pass@k, pass^k, confidence intervals, counts."""

from grader.scoring.estimators import pass_at_k, pass_hat_k

__all__ = ["pass_at_k", "pass_hat_k"]
