-- purpose: Distribution shift between the filters of robust and of normal models that learned from the same data set; each
--   model counts once.
-- source: CVPRW 2022, arXiv 2204.02481, on distribution shifts
-- parameters: pairs (varchar, all models): only models that are in this list of pairs, the name of a table or view or the
--   path of a CSV file with the columns a and b, each a model by its model_id, file name or name
-- grain: one row per training data set that has both kinds
-- columns: training_dataset; drift: in nats; n_models_robust, n_models_normal; n_filters_robust, n_filters_normal
-- reading: 0 for equal distributions. Published are 0.553 for cifar10, 0.163 for cifar100 and 0.016 for imagenet, of the
--   models in the study's list and without sparse filters, on principal components of the rest: what is here counts all
--   filters, and normal models have many sparse ones. Unequal architectures on the two sides add to it:
--   robust_drift_pairs balances them
-- nulls: no rows where the source says nothing of robustness; models of unknown robustness count nowhere
-- example: warehouse analyses cnn.warehouse robust_drift --set pairs=model_pairs
-- portable: yes
with listed as (
    select distinct listed_model
    from (
        select unnest([a::varchar, b::varchar]) as listed_model
        from query_table(coalesce(getvariable('pairs')::varchar, 'model_pairs'))
    )
    where getvariable('pairs')::varchar is not null
),
chosen as (
    select model_id_of(listed_model) as model_id
    from listed
    union
    select model_id
    from models
    where getvariable('pairs')::varchar is null
),
drifts as (
    from drift_within(
        robust, training_dataset, keep := layer_meta.model_id in (select chosen.model_id from chosen))
),
counts as (
    select
        training_dataset,
        count(*) filter (robust) as n_models_robust,
        count(*) filter (not robust) as n_models_normal
    from models
    semi join chosen using (model_id)
    group by training_dataset
)
select
    training_dataset,
    drift,
    n_models_robust,
    n_models_normal,
    n_filters_b as n_filters_robust,
    n_filters_a as n_filters_normal
from drifts
join counts on training_dataset = stratum
order by training_dataset;
