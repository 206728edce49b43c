"""Pure tensor mathematics: no state, no modules, no imports from the rest of the package."""

from lit_meta.functional.binary import binary_sign, shrinking_step_factor
from lit_meta.functional.chance import chance_level, never_learned
from lit_meta.functional.fisher import diagonal_fisher
from lit_meta.functional.gates import batch_gate, nearest_index, sample_gate, top_k_gate
from lit_meta.functional.neuromodulation import (
    expectation_code,
    modulation_table,
    neuromodulator_level,
    neuromodulator_projection,
    plasticity_modulation,
)
from lit_meta.functional.penalty import add_quadratic_penalty_gradient_, quadratic_penalty
from lit_meta.functional.per_sample import gradient_power_sums
from lit_meta.functional.projection import (
    gram_rows,
    hebbian_subspace_step,
    shrink_projector,
    subspace_activity,
)
from lit_meta.functional.readout import (
    CenteredMoments,
    Readout,
    centered_moments,
    cross_validated_ridge,
    discriminant_readout,
    oracle_approximating_shrinkage,
    ridge_readout,
)
from lit_meta.functional.sensitivity import output_sensitivity
from lit_meta.functional.spiking import (
    LIFState,
    bernoulli_encode,
    encoding_thresholds,
    lif_step,
    threshold_encode,
)

__all__ = [
    "CenteredMoments",
    "LIFState",
    "Readout",
    "add_quadratic_penalty_gradient_",
    "batch_gate",
    "bernoulli_encode",
    "binary_sign",
    "centered_moments",
    "chance_level",
    "cross_validated_ridge",
    "diagonal_fisher",
    "discriminant_readout",
    "encoding_thresholds",
    "expectation_code",
    "gradient_power_sums",
    "gram_rows",
    "hebbian_subspace_step",
    "lif_step",
    "modulation_table",
    "nearest_index",
    "neuromodulator_level",
    "neuromodulator_projection",
    "never_learned",
    "oracle_approximating_shrinkage",
    "output_sensitivity",
    "plasticity_modulation",
    "quadratic_penalty",
    "ridge_readout",
    "sample_gate",
    "shrink_projector",
    "shrinking_step_factor",
    "subspace_activity",
    "threshold_encode",
    "top_k_gate",
]
