-- purpose: Spearman's rank correlation of the quality of models with their accuracy, within each group.
-- grain: one row per group and metric
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; metric: sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean,
--   variance_entropy_clean_norm, scaled_clean_entropy or orthogonality of the layers of a model, as quality weights them, or
--   its clean_accuracy; n_clean, n_robust: models with the metric and the accuracy; with_clean_accuracy,
--   with_robust_accuracy: correlation of their ranks, -1 .. 1, ties at their mean rank. Values that agree to 12 digits are
--   ties
-- nulls: correlations of fewer than three models, or where one side is the same for all; layers where axis is NULL form no
--   group; groups and metrics without a model that has an accuracy are missing
-- example: from accuracy_correlation(training_dataset, keep := robust)
create macro accuracy_correlation(axis, keep := true) as table
with measured as (
    select q.grp.value as grp, q.grp.model as model_id, q.* exclude (grp)
    from quality(
        case when (axis) is not null then {'value': axis, 'model': layer_meta.model_id} end, keep := keep) as q
),
rated as (
    select measured.*, clean_accuracy, robust_accuracy
    from measured
    join models using (model_id)
),
metrics as (
    unpivot (
        select
            grp, model_id, sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean,
            variance_entropy_clean_norm, scaled_clean_entropy, orthogonality, clean_accuracy
        from rated
    )
    on sparsity, variance_entropy, variance_entropy_norm, variance_entropy_clean, variance_entropy_clean_norm,
        scaled_clean_entropy, orthogonality, clean_accuracy
    into name metric value value
),
accuracies as (
    unpivot (select grp, model_id, clean_accuracy, robust_accuracy from rated)
    on clean_accuracy, robust_accuracy
    into name kind value accuracy
),
-- sums in another order differ in the last digits, which must not decide a tie
observed as (
    select grp, metric, kind, round(value, 12) as value, round(accuracy, 12) as accuracy
    from metrics
    join accuracies using (grp, model_id)
    where metric <> kind
),
-- the mean rank of those that share a value
ranked as (
    select
        grp,
        metric,
        kind,
        rank() over (partition by grp, metric, kind order by value)
            + (count(*) over (partition by grp, metric, kind, value) - 1) / 2 as value_rank,
        rank() over (partition by grp, metric, kind order by accuracy)
            + (count(*) over (partition by grp, metric, kind, accuracy) - 1) / 2 as accuracy_rank
    from observed
),
correlated as (
    select
        grp,
        metric,
        kind,
        count(*) as n,
        case when count(*) > 2 then nullif(corr(value_rank, accuracy_rank), 'nan'::double) end as correlation
    from ranked
    group by grp, metric, kind
)
select
    grp,
    metric,
    coalesce(max(n) filter (kind = 'clean_accuracy'), 0) as n_clean,
    max(correlation) filter (kind = 'clean_accuracy') as with_clean_accuracy,
    coalesce(max(n) filter (kind = 'robust_accuracy'), 0) as n_robust,
    max(correlation) filter (kind = 'robust_accuracy') as with_robust_accuracy
from correlated
group by grp, metric
order by grp, metric;
