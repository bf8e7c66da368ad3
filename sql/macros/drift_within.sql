-- purpose: Drift between the groups of an axis within each stratum of something else, so that groups are compared like
--   with like: the same depth, the same architecture, the same data set.
-- grain: one row per stratum and unordered pair of different groups that both have filters there
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   given: another, its values are the strata; keep: a condition on the same columns, which layers count (default true)
-- columns: stratum: value of given; a, b: the groups, a before b; drift: in nats; n_filters_a, n_filters_b: filters of
--   each group in the stratum, without layers that have no statistics
-- nulls: layers where axis or given is NULL form no group. More than 2,000 groups and strata together are refused
-- example: from drift_within(task, architecture_family) order by drift desc
create macro drift_within(axis, given, keep := true) as table
with compared as (
    from comparable_groups(
        case when (given) is not null and (axis) is not null then {'stratum': given, 'value': axis} end, keep := keep)
),
sizes as (
    select grp, sum(n)::bigint as n_filters
    from compared
    join layer_moments using (layer_id)
    group by grp
),
distributed as (
    from distributions_of('compared')
),
drifts as (
    from drift_of_distributions('distributed')
    where a.stratum = b.stratum and a.value < b.value
)
select
    drifts.a.stratum as stratum,
    drifts.a.value as a,
    drifts.b.value as b,
    drift,
    size_a.n_filters as n_filters_a,
    size_b.n_filters as n_filters_b
from drifts
join sizes as size_a on size_a.grp = drifts.a
join sizes as size_b on size_b.grp = drifts.b
order by all;
