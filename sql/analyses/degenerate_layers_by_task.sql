-- purpose: How many layers of the models for each task are degenerate, random or sparse.
-- source: CVPR 2022, arXiv 2203.15331 and its supplement, on degenerate layers
-- parameters: min_sparsity (double, 0.14): share of sparse filters from which a layer counts as sparse
-- grain: one row per task, the one with the largest share of degenerate layers first
-- columns: task; n_models; n_layers; n_judged: layers whose entropy is known; n_degenerate, n_random, n_sparse:
--   degenerate, random and sparse layers; share_degenerate, share_random: of the judged ones; share_sparse: of those
--   whose sparsity is known
-- reading: shares count layers, whatever their size: degenerate_filters counts filters. A task with a single model says
--   more of the model (degenerate_layers_by_model)
-- nulls: models without a task count nowhere; shares of tasks whose layers all lack statistics
-- example: warehouse analyses cnn.warehouse degenerate_layers_by_task --set min_sparsity=0.5
-- portable: yes
with counts as (
    select
        task,
        count(distinct model_id) as n_models,
        count(*) as n_layers,
        count(is_degenerate) as n_judged,
        count(*) filter (is_degenerate) as n_degenerate,
        count(*) filter (is_random) as n_random,
        count(*) filter (sparsity >= coalesce(getvariable('min_sparsity')::double, 0.14)) as n_sparse,
        count(sparsity) as n_with_sparsity
    from layer_meta
    join layer_quality using (layer_id)
    where task is not null
    group by task
)
select
    task,
    n_models,
    n_layers,
    n_judged,
    n_degenerate,
    n_random,
    n_sparse,
    n_degenerate / nullif(n_judged, 0) as share_degenerate,
    n_random / nullif(n_judged, 0) as share_random,
    n_sparse / nullif(n_with_sparsity, 0) as share_sparse
from counts
order by share_degenerate desc nulls last, task;
