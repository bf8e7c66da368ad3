-- purpose: The groups of an axis as points in the plane, near where their drift is small: classical multidimensional
--   scaling of drift ^ power. Needs the functions that Python registers.
-- grain: one row per group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true); power: of the drift, above 0 (default 1).
--   Drift is a divergence, which grows like the square of a distance: its root, power 0.5, behaves more like one, keeps
--   far groups from crowding the near ones together, and is mostly the better map
-- columns: grp; x, y: coordinates around 0, x along the axis of largest spread; their signs and units mean nothing but
--   distances do; share: of the spread that the plane holds, 0 to 1, the same in all rows: a map of a small share
--   misleads
-- nulls: layers where axis is NULL form no group; nor do groups without filters; share where no two groups differ
-- example: from drift_map(task, power := 0.5)
create macro drift_map(axis, keep := true, power := 1) as table
with drifts as (
    from drift(axis, keep := keep)
),
points as (
    select a as grp, row_number() over (order by a) as position
    from drifts
    where a = b
),
scaled as (
    select classical_mds(coalesce(list(distance order by a, b), []), 2) as plane
    from (
        select
            a,
            b,
            case when power > 0 then pow(drift, power) else error('drift_map: power is not above 0') end as distance
        from drifts
        where a < b
    )
)
select
    grp,
    plane.coordinates[position][1] as x,
    plane.coordinates[position][2] as y,
    plane.held_share as share
from points
cross join scaled
order by grp;
