-- purpose: Drift between the groups of an axis once something else is held fixed: the mean of their drifts within each
--   stratum, beside the drift that ignores it. A drift that vanishes here came from the different mix of strata.
-- grain: one row per unordered pair of different groups
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   given: another, its values are the strata; keep: a condition on the same columns, which layers count (default true)
-- columns: a, b: the groups, a before b; n_strata: strata with filters of both; drift_within: mean of the drifts in
--   them, weighted by n_a n_b / (n_a + n_b) filters, as in the Mantel-Haenszel method; drift: of all their layers;
--   share_a, share_b: share of each group's filters that lie in the shared strata
-- nulls: drift_within of groups that share no stratum; layers where axis is NULL form no group, and
--   those without statistics count nowhere. More than 2,000 groups and strata together are refused
-- example: from drift_controlled(task, architecture_family) order by drift_within desc nulls last
create macro drift_controlled(axis, given, keep := true) as table
with strata as (
    from drift_within(axis, given, keep := keep)
),
shared as (
    select
        a,
        b,
        count(*) as n_strata,
        weighted_mean(drift, n_filters_a * n_filters_b / (n_filters_a + n_filters_b)) as drift_within,
        sum(n_filters_a) as n_filters_a,
        sum(n_filters_b) as n_filters_b
    from strata
    group by a, b
),
members as (
    from layer_groups(axis, keep := keep)
),
sizes as (
    select grp, sum(n) as n_filters
    from members
    join layer_moments using (layer_id)
    group by grp
),
pairs as (
    from drift(axis, keep := keep)
    where a < b
)
select
    pairs.a,
    pairs.b,
    coalesce(n_strata, 0) as n_strata,
    drift_within,
    pairs.drift,
    coalesce(n_filters_a / size_a.n_filters, 0) as share_a,
    coalesce(n_filters_b / size_b.n_filters, 0) as share_b
from pairs
left join shared using (a, b)
join sizes as size_a on size_a.grp = pairs.a
join sizes as size_b on size_b.grp = pairs.b
order by pairs.a, pairs.b;
