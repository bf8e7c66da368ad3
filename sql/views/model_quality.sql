-- purpose: Models with their labels and the quality of all their layers together.
-- grain: one row per model
-- columns: those of models, then those of quality: n_layers, n_filters, n_sparse, sparsity, variance_entropy,
--   variance_entropy_norm, share_random, share_degenerate, variance_entropy_clean, variance_entropy_clean_norm,
--   scaled_clean_entropy, orthogonality, l1, l2
-- nulls: as in models and quality
-- example: select model, sparsity, variance_entropy from model_quality order by sparsity desc
create view model_quality as
select models.*, q.* exclude (grp, n_models)
from models
join quality(layer_meta.model_id) as q on q.grp = models.model_id;
