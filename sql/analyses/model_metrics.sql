-- purpose: All metrics of torchconvquality of each model, over its layers together.
-- source: torchconvquality 0.4.0
-- parameters: model (varchar, all models): only this one, by model_id, file name or name
-- grain: one row per model
-- columns: model_id; model; n_layers; n_filters; n_sparse; sparsity: sparse filters / filters; variance_entropy,
--   variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm: mean of the layers, weighted by filters;
--   orthogonality: weighted by output channels; l1, l2: norms of all weights; l1_standardised, l2_standardised: norms of
--   the weights after each layer was standardised
-- reading: large layers rule; how the layers spread is in layer_metrics. Norms grow with the number of weights: divide
--   l1 by 9 n_filters to compare models
-- nulls: a metric that every layer lacks; layers that lack one do not count for it
-- example: warehouse analyses cnn.warehouse model_metrics --set model=0
-- portable: yes
with standardised as (
    select model_id, sum(l1_standardised) as l1_standardised, sqrt(sum(l2_standardised ** 2)) as l2_standardised
    from layer_quality
    join layers using (layer_id)
    group by model_id
)
select
    model_id,
    model,
    n_layers,
    n_filters,
    n_sparse,
    sparsity,
    variance_entropy,
    variance_entropy_norm,
    variance_entropy_clean,
    variance_entropy_clean_norm,
    orthogonality,
    l1,
    l2,
    l1_standardised,
    l2_standardised
from model_quality
join standardised using (model_id)
where
    case
        when getvariable('model')::varchar is null then true
        else model_id = model_id_of(getvariable('model')::varchar)
    end
order by model_id;
