"""Trained parameters of bottleneck adapters made of Kronecker products, counted before they are built."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_interp.checks import check_count, check_flag
from ocr_interp.errors import ConfigError


@dataclass(frozen=True)
class AdapterCounts:
    """Trained numbers of a model's adapters, by what they are.

    Attributes:
        rules: all A.
        factors: all B, or all s and t.
        biases: of the down and up projections.
        norms: of the model's own norms, where they are trained.
    """

    rules: int
    factors: int
    biases: int
    norms: int

    @property
    def total(self) -> int:
        """All together."""
        return self.rules + self.factors + self.biases + self.norms


def adapter_counts(
    width: int,
    bottleneck: int,
    n_adapters: int,
    *,
    phm_dim: int = 4,
    phm_rank: int = 1,
    shared_phm_rule: bool = True,
    factorized_phm_W: bool = True,
    learn_phm: bool = True,
    phm_bias: bool = True,
    norms: int = 0,
) -> AdapterCounts:
    """Counts of x + up(f(down(x))), down [width, bottleneck] and up its opposite, both Σ_k A_k ⊗ B_k + bias.

    Args:
        width: of the stream.
        bottleneck: width / reduction_factor.
        n_adapters: in the whole model: 2 per block for Compacter, 1 for Compacter++.
        phm_dim: number of terms and size of A.
        phm_rank: rank of B_k = s_k t_kᵀ.
        shared_phm_rule: one set of A for all projections of the model; else one for each projection.
        factorized_phm_W: whether B_k is s_k t_kᵀ; else B_k is free (PHM-adapter).
        learn_phm: whether A is trained.
        phm_bias: whether projections have biases.
        norms: numbers in norms of the model that are trained too.

    Raises:
        ConfigError: a phm_dim that does not divide both widths, with those that do.

    Source: Karimi Mahabadi et al. 2021 (arXiv 2106.04647), tables 1 and 2.
    """
    sizes = {"width": width, "bottleneck": bottleneck, "n_adapters": n_adapters, "phm_dim": phm_dim}
    for name, value in {**sizes, "phm_rank": phm_rank}.items():
        check_count(name, value, 1)
    check_count("norms", norms, 0)
    for name, flag in (
        ("shared_phm_rule", shared_phm_rule),
        ("factorized_phm_W", factorized_phm_W),
        ("learn_phm", learn_phm),
        ("phm_bias", phm_bias),
    ):
        check_flag(name, flag)
    if width % phm_dim or bottleneck % phm_dim:
        divisors = [d for d in range(1, bottleneck + 1) if width % d == bottleneck % d == 0]
        raise ConfigError(
            f"phm_dim must divide the width {width} and the bottleneck {bottleneck}: one of "
            f"{', '.join(map(str, divisors))}, got {phm_dim}: choose one of them, or another reduction factor"
        )
    projections = 2 * n_adapters
    rule = phm_dim**3 if learn_phm else 0
    # s: phm_dim x (rows / phm_dim) x rank, t: phm_dim x rank x (columns / phm_dim)
    factor = (width + bottleneck) * phm_rank if factorized_phm_W else width * bottleneck // phm_dim
    return AdapterCounts(
        rules=rule * (1 if shared_phm_rule else projections),
        factors=projections * factor,
        biases=n_adapters * (width + bottleneck) if phm_bias else 0,
        norms=norms,
    )
