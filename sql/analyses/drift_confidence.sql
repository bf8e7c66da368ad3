-- purpose: How sure the drift between groups is: confidence intervals by drawing the layers of each group anew.
-- source: this project
-- parameters: axis (column, task): whose values are the groups; replicates (integer, 100): how often to draw;
--   level (double, 0.95): of the interval; seed (integer, 0): the same one draws the same
-- grain: one row per unordered pair of different groups
-- columns: a, b: the groups, a before b; drift: in nats; low, high: percentiles of the replicates less bias, at least 0;
--   standard_error: their standard deviation; bias: their mean less drift; n_layers_a, n_layers_b
-- reading: a drift is larger than another in earnest if their intervals do not overlap. A bias that is not small against drift says that
--   the interval tells more of the layers' number than of the groups. Layers of one model are alike, which the bootstrap
--   takes for certainty
-- nulls: low, high, standard_error and bias where a group has a single layer; layers without a value of axis form no group
-- example: warehouse analyses cnn.warehouse drift_confidence --set axis=visual_category --set replicates=50
-- portable: yes
from drift_interval(
    struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')),
    replicates := coalesce(getvariable('replicates')::integer, 100),
    level := coalesce(getvariable('level')::double, 0.95),
    seed := coalesce(getvariable('seed')::integer, 0));
