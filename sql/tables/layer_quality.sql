-- purpose: The quality of each layer: sparsity, variance entropy, orthogonality and norms.
-- grain: one row per layer
-- columns: layer_id; n_filters; n_sparse: filters whose peak is below 1 % of the layer's; sparsity: their share;
--   variance_entropy: entropy (log10, at most 0.954) of the shares of variance along the principal axes of the raw
--   filters; randomness_threshold: what as many random filters reach; variance_entropy_norm: the ratio of the two;
--   is_random: entropy above the threshold; is_degenerate: within 0.02 of it or above, or entropy below 0.5 with at
--   least 14 % sparse filters; variance_entropy_clean, variance_entropy_clean_norm: without sparse filters;
--   scaled_clean_entropy: the same of scaled filters; orthogonality: 1 - mean overlap of the output channels;
--   l1, l2: norms of all weights; l1_standardised, l2_standardised: after (w - mean) / standard deviation
-- nulls: entropies of fewer than two filters; normalised ones of fewer than three; orthogonality without channel
--   numbers or with one channel; standardised norms of equal weights; all but randomness_threshold of a
--   layer with NaN or infinite weights. By the letter of the definition a layer of two filters is random and
--   degenerate: its entropy is 0 and the threshold for two filters below 0
-- example: select layer_id, sparsity from layer_quality where is_degenerate
create table layer_quality as
from lake_layer_quality
order by layer_id;
