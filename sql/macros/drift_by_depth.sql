-- purpose: Drift between the groups of an axis in each tenth of the models' depth.
-- grain: one row per tenth of the depth and unordered pair of different groups of the axis
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: depth_decile: 1 .. 10; a, b: the groups, a before b; drift: in nats; n_filters_a, n_filters_b: filters of each
--   group there, without layers that have no statistics
-- nulls: drift where one of the groups has no filters in that tenth; layers without axis or depth count nowhere. More than
--   2,000 groups and tenths together are refused
-- example: from drift_by_depth(pretrained)
create macro drift_by_depth(axis, keep := true) as table
with present as (
    from drift_within(axis, depth_decile, keep := keep)
),
members as (
    from layer_groups(
        case when depth_decile is not null and (axis) is not null then {'depth': depth_decile, 'value': axis} end,
        keep := keep)
),
sizes as (
    select members.grp.depth as depth_decile, members.grp.value as grp, sum(n)::bigint as n_filters
    from members
    join layer_moments using (layer_id)
    group by members.grp
),
names as (
    select distinct grp from sizes
),
pairs as (
    select x.grp as a, y.grp as b, decile::tinyint as depth_decile
    from names as x
    join names as y on x.grp < y.grp
    cross join range(1, 11) as deciles(decile)
)
select
    pairs.depth_decile,
    pairs.a,
    pairs.b,
    drift,
    coalesce(size_a.n_filters, 0) as n_filters_a,
    coalesce(size_b.n_filters, 0) as n_filters_b
from pairs
left join sizes as size_a on size_a.depth_decile = pairs.depth_decile and size_a.grp = pairs.a
left join sizes as size_b on size_b.depth_decile = pairs.depth_decile and size_b.grp = pairs.b
left join present on present.stratum = pairs.depth_decile and present.a = pairs.a and present.b = pairs.b
order by pairs.depth_decile, pairs.a, pairs.b;
