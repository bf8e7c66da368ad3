-- purpose: How many layers of each model are degenerate, random or sparse.
-- source: CVPR 2022, arXiv 2203.15331 and its supplement, on degenerate layers
-- parameters: min_sparsity (double, 0.14): share of sparse filters from which a layer counts as sparse
-- grain: one row per model, the one with the largest share of degenerate layers first
-- columns: model_id; model; task; training_dataset; architecture_family; n_layers; n_judged: layers whose entropy is
--   known; n_degenerate, n_random, n_sparse: degenerate, random and sparse layers; share_degenerate, share_random: of
--   the judged ones; share_sparse: of those whose sparsity is known
-- reading: a random layer has learned nothing, a sparse one of low entropy only few shapes: both are degenerate, and
--   mostly mean a network too large for its data. A sparse layer of high entropy is not. Single layers:
--   layer_sparsity_and_entropy
-- nulls: shares of models whose layers all lack statistics; labels that the source does not give
-- example: warehouse analyses cnn.warehouse degenerate_layers_by_model --set min_sparsity=0.5
-- portable: yes
with counts as (
    select
        model_id,
        count(*) as n_layers,
        count(is_degenerate) as n_judged,
        count(*) filter (is_degenerate) as n_degenerate,
        count(*) filter (is_random) as n_random,
        count(*) filter (sparsity >= coalesce(getvariable('min_sparsity')::double, 0.14)) as n_sparse,
        count(sparsity) as n_with_sparsity
    from layers
    join layer_quality using (layer_id)
    group by model_id
),
labels as (
    -- without the source's own columns, which may have the names of others here
    select model_id, model, task, training_dataset, architecture_family
    from models
)
select
    model_id,
    model,
    task,
    training_dataset,
    architecture_family,
    n_layers,
    n_judged,
    n_degenerate,
    n_random,
    n_sparse,
    n_degenerate / nullif(n_judged, 0) as share_degenerate,
    n_random / nullif(n_judged, 0) as share_random,
    n_sparse / nullif(n_with_sparsity, 0) as share_sparse
from counts
join labels using (model_id)
order by share_degenerate desc nulls last, model_id;
