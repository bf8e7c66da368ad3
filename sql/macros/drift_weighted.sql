-- purpose: Drift with chosen weights of the components, such as the same for all.
-- grain: one row per ordered pair of groups, a group with itself included
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   weights: a list of nine numbers, how much each component counts; NULL for its explained_variance_ratio, as in drift;
--   keep: a condition on the same columns as axis, which layers count (default true)
-- columns: a, b: the groups; drift: in nats times the unit of weights
-- nulls: layers where axis is NULL form no group; nor do groups without filters. More than 2,000 groups are refused
-- example: from drift_weighted(task, [1, 1, 1, 1, 1, 1, 1, 1, 1]) order by drift desc
create macro drift_weighted(axis, weights, keep := true) as table
with compared as (
    from comparable_groups(axis, keep := keep)
),
distributed as (
    from distributions_of('compared')
)
from drift_of_distributions('distributed', weights := weights);
