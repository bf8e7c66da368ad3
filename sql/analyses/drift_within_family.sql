-- purpose: Whether a group, such as a visual category, is an outlier once the architecture is held fixed, or stands out only
--   because its models are built differently.
-- source: medical follow-up of CNN Filter DB, arXiv 2210.13799
-- parameters: axis (column, visual_category): whose values are the groups; given (column, architecture_family): what is held
--   fixed
-- grain: one row per group, the largest mean_drift_within first
-- columns: grp; n_others: other groups; mean_drift: mean drift to all of them, in nats; score; is_outlier;
--   n_comparable: other groups that share a value of given; mean_drift_comparable: mean drift to these; mean_drift_within: the
--   same within the shared values of given, as in drift_controlled; score_within; is_outlier_within
-- reading: a score is (mean drift - q3) / (q3 - q1), with the quartiles over the groups; is_outlier is Tukey's rule, a score
--   above 1.5. An outlier that is none within the family owed it to its architectures. If mean_drift_within is near
--   mean_drift_comparable, it did not. Few n_comparable say little
-- nulls: scores of fewer than four groups, or where q3 is q1; what is within for groups that share no value of given with
--   another; layers without a value of axis count nowhere
-- example: warehouse analyses cnn.warehouse drift_within_family --set axis=task --set given=depth_decile
-- portable: yes
with controlled as (
    from drift_controlled(
        struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'visual_category')),
        struct_extract(layer_meta, coalesce(getvariable('given')::varchar, 'architecture_family')))
),
both_ways as (
    select a as grp, drift, drift_within
    from controlled
    union all
    select b, drift, drift_within
    from controlled
),
means as (
    select
        grp,
        count(*) as n_others,
        avg(drift) as mean_drift,
        count(drift_within) as n_comparable,
        avg(drift) filter (drift_within is not null) as mean_drift_comparable,
        avg(drift_within) as mean_drift_within
    from both_ways
    group by grp
),
quartiles as (
    select
        case when count(mean_drift) > 3 then quantile_cont(mean_drift, [0.25, 0.75]) end as overall,
        case when count(mean_drift_within) > 3 then quantile_cont(mean_drift_within, [0.25, 0.75]) end as controlled
    from means
),
scored as (
    select
        means.*,
        (mean_drift - overall[2]) / nullif(overall[2] - overall[1], 0) as score,
        (mean_drift_within - controlled[2]) / nullif(controlled[2] - controlled[1], 0) as score_within
    from means
    cross join quartiles
)
select
    grp,
    n_others,
    mean_drift,
    score,
    score > 1.5 as is_outlier,
    n_comparable,
    mean_drift_comparable,
    mean_drift_within,
    score_within,
    score_within > 1.5 as is_outlier_within
from scored
order by mean_drift_within desc nulls last, mean_drift desc, grp;
