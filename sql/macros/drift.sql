-- purpose: Distribution shift between groups of layers: how differently their filters are shaped. For each component of
--   the basis the symmetric Kullback-Leibler divergence of the two distributions, weighted by the variance that the
--   component explains.
-- grain: one row per ordered pair of groups, a group with itself included
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: a, b: the groups; drift: in nats, 0 for equal distributions, symmetric, not bounded
-- nulls: layers where axis is NULL form no group; nor do groups without filters (see empty_groups). More than 2,000
--   groups are refused
-- example: from drift(task, keep := conv_depth > 0) order by drift desc
create macro drift(axis, keep := true) as table
from drift_weighted(axis, null, keep := keep);
