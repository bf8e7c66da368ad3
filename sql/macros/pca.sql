-- purpose: Principal components of the filters of each group of layers, from the layers' moments.
-- grain: one row per group and component (0 .. 8, falling eigenvalue)
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true);
--   filters: which filters and how: 'scaled' (default), 'clean' (scaled, without the sparse ones), 'raw' (as they are)
--   or 'clean_raw' (raw, without the sparse ones)
-- columns: grp; component; eigenvalue: variance along the component; explained_variance_ratio: its share of the
--   variance (0 where there is none); cumulative_ratio: the shares up to here; loading: the component, 9 weights
--   row by row, length 1, the entry with the largest magnitude positive, the first of those that tie
-- nulls: layers where axis is NULL form no group; nor do layers without statistics. More than 2,000 groups are refused
-- example: select grp, component, cumulative_ratio from pca(task) where component < 3
create macro pca(axis, keep := true, filters := 'scaled') as table
with compared as (
    from comparable_groups(axis, keep := keep)
),
covered as (
    from covariances_of('compared', filters := filters)
)
from components_of('covered');
