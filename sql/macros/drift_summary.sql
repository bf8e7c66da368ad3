-- purpose: Box-plot statistics of the drift between the groups of an axis.
-- grain: one row
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: pairs: unordered pairs of different groups; mean, min, q1, median, q3, max: of their drift, in nats;
--   quartiles interpolate linearly
-- nulls: all but pairs are NULL where there are fewer than two groups
-- example: from drift_summary(visual_category)
create macro drift_summary(axis, keep := true) as table
select
    count(*) as pairs,
    avg(drift) as mean,
    min(drift) as min,
    quantile_cont(drift, 0.25) as q1,
    median(drift) as median,
    quantile_cont(drift, 0.75) as q3,
    max(drift) as max
from drift(axis, keep := keep)
where a < b;
