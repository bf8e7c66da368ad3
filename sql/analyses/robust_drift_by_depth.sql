-- purpose: Distribution shift between robust and normal models in each tenth of the depth, first layers apart, over all data
--   sets and for each.
-- source: CVPRW 2022, arXiv 2204.02481, on distribution shifts by depth
-- parameters: training_dataset (varchar, all together and each): only this one
-- grain: one row per training data set and depth that has both kinds, all data sets together first
-- columns: training_dataset: NULL for all together; depth: 0 for layers at conv_depth 0, 1 .. 10 for the tenths of the
--   depth of the others; drift: in nats; n_filters_robust, n_filters_normal
-- reading: in the study drift is largest in first and last layers. All data sets together mix data sets of different
--   images; look at them one by one. Few filters drift by their number alone
-- nulls: no rows where the source says nothing of robustness; layers without depth and models of unknown robustness count
--   nowhere
-- example: warehouse analyses cnn.warehouse robust_drift_by_depth --set training_dataset=cifar10
-- portable: yes
with drifts as (
    select stratum.dataset as training_dataset, stratum.depth as depth, drift, n_filters_a, n_filters_b
    from drift_within(
        robust,
        case
            when depth_decile is not null or conv_depth = 0
                then {'dataset': training_dataset, 'depth': case when conv_depth = 0 then 0 else depth_decile end}
        end,
        keep := training_dataset = coalesce(getvariable('training_dataset')::varchar, training_dataset))
    union all
    select null, stratum, drift, n_filters_a, n_filters_b
    from drift_within(
        robust,
        case when conv_depth = 0 then 0 else depth_decile end,
        keep := getvariable('training_dataset')::varchar is null)
)
select
    training_dataset,
    depth::tinyint as depth,
    drift,
    n_filters_b as n_filters_robust,
    n_filters_a as n_filters_normal
from drifts
order by training_dataset nulls first, depth;
