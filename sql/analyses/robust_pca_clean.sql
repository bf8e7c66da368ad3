-- purpose: Principal components of the filters that are not sparse, of robust and of normal models and of both.
-- source: CVPRW 2022, arXiv 2204.02481, on principal components
-- parameters: training_dataset (varchar, all data sets): only models trained on it, as models.training_dataset has it
-- grain: one row per group and component 0 .. 8
-- columns: grp: all for both together, robust, normal; component; eigenvalue: variance along it;
--   explained_variance_ratio: its share of the variance; cumulative_ratio: the shares up to here; w0 .. w8: the component as
--   an image, row by row, length 1, the entry with the largest magnitude positive, the first of those that tie
-- reading: filters are scaled to a largest magnitude of 1. The sooner cumulative_ratio nears 1, the fewer shapes there are.
--   Components of nearly equal ratio may come rotated into each other
-- nulls: no rows where the source says nothing of robustness; models of unknown robustness count nowhere
-- example: warehouse analyses cnn.warehouse robust_pca_clean --set training_dataset=cifar10
-- portable: yes
with chosen as (
    select layer_id, robust
    from layer_meta
    where
        robust is not null
        and training_dataset is not distinct from coalesce(getvariable('training_dataset')::varchar, training_dataset)
),
kinds as (
    select 'all' as grp, layer_id
    from chosen
    union all
    select case when robust then 'robust' else 'normal' end, layer_id
    from chosen
),
covered as (
    from covariances_of('kinds', filters := 'clean')
)
select
    grp,
    component,
    eigenvalue,
    explained_variance_ratio,
    cumulative_ratio,
    loading[1] as w0,
    loading[2] as w1,
    loading[3] as w2,
    loading[4] as w3,
    loading[5] as w4,
    loading[6] as w5,
    loading[7] as w6,
    loading[8] as w7,
    loading[9] as w8
from components_of('covered')
order by list_position(['all', 'robust', 'normal'], grp), component;
