"""The Fréchet distance between features of videos: naturalness, as far as our own classifier sees it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def frechet(ours: Floats, real: Floats) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) of two sets of features, (N, D) each (Heusel et al. 2017).

    Raises ValueError for a set of fewer than two.
    """
    for name, features in (("ours", ours), ("real", real)):
        if len(features) < 2:
            raise ValueError(f"{name}: {len(features)} rows are not allowed; allowed: at least 2")
    means = [features.mean(axis=0) for features in (ours, real)]
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (ours, real)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(np.clip(values, 0.0, None)) @ vectors.T
    crossed = np.linalg.eigvalsh(root @ covariances[1] @ root)  # those of S1 S2, of a symmetric matrix
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.clip(crossed, 0.0, None)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + trace)
