-- purpose: Distribution shift between groups once something else is held fixed, beside the drift that ignores it.
-- source: this project
-- parameters: axis (column, task): whose values are the groups; given (column, depth_decile): what is held fixed
-- grain: one row per unordered pair of different groups
-- columns: a, b: the groups, a before b; n_strata: values of given with filters of both; drift_within: mean of the drifts in
--   them, in nats, weighted by n_a n_b / (n_a + n_b) filters; drift: of all their layers; share_a, share_b: share of each
--   group's filters that lie in the shared strata
-- reading: a drift_within far below drift says that the groups differ because they come with different values of given.
--   Above it can be too: strata are smaller than the whole, and small groups drift more. Small shares say that
--   drift_within rests on little
-- nulls: drift_within of groups that share no stratum; layers without a value of axis form no group
-- example: warehouse analyses cnn.warehouse drift_held_fixed --set axis=visual_category --set given=task
-- portable: yes
from drift_controlled(
    struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')),
    struct_extract(layer_meta, coalesce(getvariable('given')::varchar, 'depth_decile')));
