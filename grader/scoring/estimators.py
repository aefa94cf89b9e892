"""pass@k and pass^k for one task, from n samples of which c passed.

Both are computed with whole numbers and divided once, so that the result is the float nearest to the exact
value, also where the two terms of ``1 - x`` would nearly cancel.
"""

from __future__ import annotations

from math import comb


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the probability that at least one of k samples passes, without bias.

    The estimator is ``1 - C(n - c, k) / C(n, k)``: Chen et al., "Evaluating Large Language Models Trained on
    Code", 2021, arXiv 2107.03374, equation 1.

    Parameters: ``n`` samples were drawn for the task, ``c`` of them passed, ``k`` is at most n.

    Raises ValueError unless n, c and k are whole numbers with ``n >= 1``, ``0 <= c <= n`` and ``1 <= k <=
    n``.
    """
    _check(n, c, k)
    draws = comb(n, k)
    return (draws - comb(n - c, k)) / draws


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Estimate the probability that all of k samples pass (pass^k), without bias.

    The estimator is ``C(c, k) / C(n, k)``: Yao et al., "tau-bench", 2024, arXiv 2406.12045, section 3.

    Parameters and errors are those of :func:`pass_at_k`.
    """
    _check(n, c, k)
    return comb(c, k) / comb(n, k)


def _check(n: int, c: int, k: int) -> None:
    if not all(isinstance(value, int) for value in (n, c, k)):
        raise ValueError(f"n, c and k are whole numbers, not {n!r}, {c!r} and {k!r}")
    if n < 1:
        raise ValueError(f"n is {n}; an estimate needs at least one sample")
    if not 0 <= c <= n:
        raise ValueError(f"c is {c}; of {n} samples between 0 and {n} can have passed")
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}; from {n} samples pass@k can be estimated for k from 1 to {n}")
