-- purpose: Distribution of the filters of each group along each component of the basis.
-- grain: one row per group, component (0 .. 8) and bin (0 .. 69), empty bins included
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; component; bin; bin_lo, bin_hi: its edges; n: filters in it; density: share of the group's filters per
--   unit of the coefficient; probability: density, with 1.1920929e-07 (float32 eps) where it is 0, divided by its sum
-- nulls: layers where axis is NULL form no group; nor do groups without filters (see empty_groups)
-- example: select bin_lo, probability from distributions(task) where grp = 'Segmentation' and component = 0
create macro distributions(axis, keep := true) as table
with grouped as (
    from layer_groups(axis, keep := keep)
)
from distributions_of('grouped');
