-- purpose: Distribution of the filters of groups of layers that a table or a CTE names, along each component of the
--   basis: what distributions makes of the groups of an axis. A layer that is in a group several times counts as often.
-- grain: one row per group, component (0 .. 8) and bin (0 .. 69), empty bins included
-- parameters: members: the name, as text, of a table, view or CTE with the columns grp and layer_id
-- columns: grp; component; bin; bin_lo, bin_hi: its edges; n: filters in it; density: share of the group's filters per
--   unit of the coefficient; probability: density, with 1.1920929e-07 (float32 eps) where it is 0, divided by its sum
-- nulls: groups without filters have no rows
-- example: with halves as (select layer_id % 2 as grp, layer_id from layers) from distributions_of('halves')
create macro distributions_of(members) as table
with counted as (
    select grp, component, bin, sum(n)::bigint as n
    from layer_histograms
    join (select grp, layer_id from query_table(members)) using (layer_id)
    group by grp, component, bin
)
from distributions_of_counts('counted');
