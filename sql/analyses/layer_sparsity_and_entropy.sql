-- purpose: Sparsity and variance entropy of each layer, with its model and depth.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on sparsity and layer entropy
-- parameters: task (varchar, all tasks): only models of this task;
--   visual_category (varchar, all categories): only models of this category;
--   training_dataset (varchar, all data sets): only models trained on it, as models.training_dataset has it;
--   architecture_family (varchar, all families): only models of this family;
--   model (varchar, all models): only this one, by model_id, file name or name
-- grain: one row per layer
-- columns: layer_id; model_id; model; task; visual_category; architecture_family; conv_depth, conv_depth_norm: rank of
--   the layer's depth, and the same from 0 to 1; n_filters; n_sparse: filters whose peak is below 1 % of the layer's;
--   sparsity: their share; variance_entropy: log10, at most 0.954; randomness_threshold: what as many random filters
--   reach; variance_entropy_norm: the ratio of the two; is_random; is_degenerate
-- reading: an entropy near the threshold is what an untrained layer has, one near 0 a layer of copies of few shapes.
--   Entropy of layers with few filters says little: prefer variance_entropy_norm. Degenerate are both ends
-- nulls: labels that the source does not give; entropies of fewer than two filters, normalised ones of fewer than
--   three; all statistics of layers with NaN or infinite weights
-- example: warehouse analyses cnn.warehouse layer_sparsity_and_entropy --set task=Classification
-- portable: yes
select
    layer_id,
    model_id,
    model,
    task,
    visual_category,
    architecture_family,
    conv_depth,
    conv_depth_norm,
    layer_meta.n_filters,
    n_sparse,
    sparsity,
    variance_entropy,
    randomness_threshold,
    variance_entropy_norm,
    is_random,
    is_degenerate
from layer_meta
join layer_quality using (layer_id)
where
    task is not distinct from coalesce(getvariable('task')::varchar, task)
    and visual_category is not distinct from coalesce(getvariable('visual_category')::varchar, visual_category)
    and training_dataset is not distinct from coalesce(getvariable('training_dataset')::varchar, training_dataset)
    and architecture_family
        is not distinct from coalesce(getvariable('architecture_family')::varchar, architecture_family)
    and case
        when getvariable('model')::varchar is null then true
        else model_id = model_id_of(getvariable('model')::varchar)
    end
order by layer_id;
