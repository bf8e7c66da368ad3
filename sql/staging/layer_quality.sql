-- purpose: layer_quality from what the passes over the filters measured.
-- grain: one row per layer
-- parameters: measured_quality: counts, entropies, orthogonality and norms of each layer
select
    layer_id,
    n_filters,
    n_sparse,
    n_sparse / n_filters as sparsity,
    variance_entropy,
    randomness_threshold(n_filters) as randomness_threshold,
    if(n_filters > 2, variance_entropy / randomness_threshold(n_filters), null) as variance_entropy_norm,
    variance_entropy > randomness_threshold(n_filters) as is_random,
    variance_entropy >= randomness_threshold(n_filters) - 0.02
        or (variance_entropy < 0.5 and n_sparse / n_filters >= 0.14) as is_degenerate,
    variance_entropy_clean,
    if(
        n_filters - n_sparse > 2, variance_entropy_clean / randomness_threshold(n_filters - n_sparse), null
    ) as variance_entropy_clean_norm,
    scaled_clean_entropy,
    orthogonality,
    l1,
    l2,
    l1_standardised,
    l2_standardised
from measured_quality
order by layer_id;
