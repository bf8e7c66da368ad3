-- purpose: Drift between distributions that a table or a CTE holds: what drift makes of the groups of an axis.
-- grain: one row per ordered pair of groups, a group with itself included
-- parameters: distributions: the name, as text, of a table, view or CTE with the columns grp, component, bin and
--   probability; weights: nine numbers, how much each component counts (default NULL: its explained_variance_ratio)
-- columns: a, b: the groups; drift: in nats, 0 for equal distributions, symmetric, not bounded
-- nulls: no rows without distributions. More than 2,000 are refused
-- example: with halves as (from distributions(layer_id % 2)) from drift_of_distributions('halves')
create macro drift_of_distributions(distributions, weights := null) as table
with vectors as (
    from drift_vectors(distributions, weights := weights)
)
select x.grp as a, y.grp as b, drift_of_vectors(x, y) as drift
from vectors as x
cross join vectors as y
where (select few_groups(count(*)) from vectors)
order by a, b;
