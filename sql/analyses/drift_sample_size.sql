-- purpose: How far a random sample of the layers drifts from all of them: how many layers it takes before a drift says
--   more than the size of the sample.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: task (varchar, all tasks): only layers of models for this task; replicates (integer, 20): samples of each
--   size; seed (integer, 0): the same one draws the same
-- grain: one row per sample size: 1, 2, 5, 10, 20, 50, ... layers below their number
-- columns: n_layers: in a sample; n_filters: mean number of filters in it; mean, min, q1, median, q3, max: of the drift
--   between a sample and all layers, in nats
-- reading: a group of so many layers that drifts no more than the maximum here may be a random choice. Layers of a
--   model are alike, so that real groups drift more than samples over all models do
-- nulls: no rows where fewer than two layers are left
-- example: warehouse analyses cnn.warehouse drift_sample_size --set task=Classification --set replicates=50
-- portable: yes
from drift_by_sample_size(
    keep := task is not distinct from coalesce(getvariable('task')::varchar, task),
    replicates := coalesce(getvariable('replicates')::integer, 20),
    seed := coalesce(getvariable('seed')::integer, 0));
