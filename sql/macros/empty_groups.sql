-- purpose: Groups of an axis that have nothing to show: keep leaves none of their layers, or none has statistics. What
--   compares groups has no rows for them.
-- grain: one row per empty group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; n_layers: layers of the group without keep; reason: why nothing is left
-- nulls: layers where axis is NULL form no group
-- example: from empty_groups(task, keep := depth_decile = 1)
create macro empty_groups(axis, keep := true) as table
with everything as (
    from layer_groups(axis)
),
kept as (
    from layer_groups(axis, keep := keep)
),
all_groups as (
    select grp, count(*) as n_layers
    from everything
    group by grp
),
kept_groups as (
    select grp, count(n) as n_measured
    from kept
    join layer_moments using (layer_id)
    group by grp
)
select
    grp,
    n_layers,
    case
        when n_measured is null then 'keep leaves none of its layers'
        else 'its layers have NaN or infinite weights'
    end as reason
from all_groups
left join kept_groups using (grp)
where coalesce(n_measured, 0) = 0
order by grp;
