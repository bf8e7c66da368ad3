-- purpose: Drift between two sets of layers, component by component. The sets may overlap and need not cover anything.
-- grain: one row per component, then one with component NULL for their sum
-- parameters: a, b: conditions over the columns of layer_meta and layer_quality, the layers of each set
-- columns: component: 0 .. 8, NULL for the sum; drift: its part of the drift, in nats; share: of the sum
-- nulls: no rows where a set has no filters; share is NULL where the sets are equal
-- example: from drift_between(task = 'Classification', task = 'Segmentation')
create macro drift_between(a, b) as table
with pairs as (
    select
        component,
        list(x.probability order by bin) as p,
        list(y.probability order by bin) as q
    from distributions(1, keep := a) as x
    join distributions(2, keep := b) as y using (component, bin)
    group by component
),
parts as (
    select component, explained_variance_ratio * drift_of(p, q) as drift
    from pairs
    join basis using (component)
),
totals as (
    select component, sum(drift order by component) as drift
    from parts
    group by grouping sets ((component), ())
)
select component, drift, drift / nullif((select sum(drift) from parts), 0) as share
from totals
where drift is not null
order by component nulls last;
