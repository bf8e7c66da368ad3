-- purpose: Distributions of random samples of the layers of groups, all samples at once: what drift_interval and
--   drift_by_sample_size draw.
-- grain: one row per sample of a group, component (0 .. 8) and bin (0 .. 69), empty bins included
-- parameters: members: the name, as text, of a table, view or CTE with the columns grp and layer_id; draws: the name of one,
--   but not `listed`, with the columns grp, sample (a number, each once) and times, a list: how often each layer of the
--   group is in the sample, in the order of layer_id
-- columns: grp: the sample's number; then those of distributions
-- nulls: samples without filters have no rows
-- example: with halves as (select layer_id % 2 as grp, layer_id from layers), draws as (select grp, grp as sample,
--   list(1 order by layer_id) as times from halves group by grp) from distributions_resampled('halves', 'draws')
create macro distributions_resampled(members, draws) as table
with listed as (
    select grp, layer_id
    from query_table(members)
),
drawn as (
    select grp, sample, times::double[] as times
    from query_table(draws)
),
counts as (
    select grp, component, bin, layer_id, n
    from listed
    join layer_histograms using (layer_id)
),
cells as (
    select distinct grp, component, bin
    from counts
),
-- a row of counts per cell, one number a layer, so that a sample costs one dot product a cell
dense as (
    select grp, component, bin, list(coalesce(n, 0)::double order by layer_id) as n
    from cells
    join listed using (grp)
    left join counts using (grp, component, bin, layer_id)
    group by grp, component, bin
),
counted as (
    select
        sample as grp,
        component,
        bin,
        list_dot_product(dense.n, drawn.times) as n
    from dense
    join drawn using (grp)
),
filled as (
    from counted
    where n > 0
)
from distributions_of_counts('filled');
