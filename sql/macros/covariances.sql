-- purpose: Mean and covariance of the filters of each group of layers.
-- grain: one row per group
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true);
--   filters: which filters and how: 'scaled' (default), 'clean' (scaled, without the sparse ones), 'raw' (as they are)
--   or 'clean_raw' (raw, without the sparse ones)
-- columns: grp; n: filters; mean: nine weights row by row; covariance: of the weights (n - 1), 81 numbers row by row
-- nulls: layers where axis is NULL form no group; nor do layers without statistics
-- example: select grp, n, mean from covariances(task)
create macro covariances(axis, keep := true, filters := 'scaled') as table
with grouped as (
    -- apart from the table that it is joined with, so that axis cannot name its columns
    from layer_groups(axis, keep := keep)
)
from covariances_of('grouped', filters := filters);
