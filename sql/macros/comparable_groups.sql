-- purpose: layer_groups for what compares every group with every other: refuses an axis with more than 2,000 groups.
-- grain: one row per layer that is in a group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; layer_id; model_id; n_filters; out_channels
-- nulls: layers where axis is NULL form no group
-- example: select count(distinct grp) from comparable_groups(model_id)
create macro comparable_groups(axis, keep := true) as table
with grouped as (
    from layer_groups(axis, keep := keep)
)
from grouped
where (select few_groups(count(distinct grp)) from grouped);
