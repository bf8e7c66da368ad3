-- purpose: What there is to compare training data sets by: how many models and filters each has, how varied its filters
--   are, and how many of its layers are degenerate.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts between training data sets
-- parameters: min_models (integer, 1): data sets with fewer models are left out; min_filters (bigint, 1): those with
--   fewer filters are, too
-- grain: one row per training data set, the one with the most filters first; a model that was trained on several counts
--   for each
-- columns: dataset; n_models; n_layers; n_filters; filters_per_model: mean; variance: of the scaled filters, summed
--   over the nine weights; variance_entropy, variance_entropy_norm: mean of the layers, weighted by filters; sparsity:
--   sparse filters / filters; share_random, share_degenerate: of the layers that can be judged
-- reading: compare data sets with drift only where n_models and n_filters are of some size, and share_degenerate is
--   alike: networks too large for their data leave many layers untrained, and these shift the distributions
-- nulls: statistics of data sets whose layers all lack them; models without a training data set count nowhere
-- example: warehouse analyses cnn.warehouse training_set_conditions --set min_models=2 --set min_filters=1000
-- portable: yes
with trained as (
    select trained_on.dataset as grp, layer_id, model_id
    from model_datasets as trained_on
    join layers using (model_id)
    where trained_on.role = 'training'
),
variances as (
    select grp, list_sum(list_transform(range(9), lambda i: covariance[10 * i + 1])) as variance
    from covariances_of('trained')
),
qualities as (
    select
        grp,
        count(distinct model_id) as n_models,
        count(*) as n_layers,
        sum(n_filters)::bigint as n_filters,
        weighted_mean(variance_entropy, n_filters) as variance_entropy,
        weighted_mean(variance_entropy_norm, n_filters) as variance_entropy_norm,
        weighted_mean(sparsity, n_filters) as sparsity,
        avg(is_random::integer) as share_random,
        avg(is_degenerate::integer) as share_degenerate
    from trained
    join layer_quality using (layer_id)
    group by grp
)
select
    grp as dataset,
    n_models,
    n_layers,
    n_filters,
    n_filters / n_models as filters_per_model,
    variance,
    variance_entropy,
    variance_entropy_norm,
    sparsity,
    share_random,
    share_degenerate
from qualities
left join variances using (grp)
where
    n_models >= coalesce(getvariable('min_models')::integer, 1)
    and n_filters >= coalesce(getvariable('min_filters')::bigint, 1)
order by n_filters desc, dataset;
