-- purpose: The models with the largest share of degenerate layers.
-- grain: one row per model that has a degenerate layer, at most 20
-- columns: those of model_quality
select model, task, n_layers, n_filters, share_degenerate, share_random, sparsity, variance_entropy
from model_quality
where share_degenerate > 0
order by share_degenerate desc, sparsity desc, model
limit 20;
