-- purpose: Distribution shift between tasks: how differently the filters of models are shaped that were trained for
--   them.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: none
-- grain: one row per ordered pair of tasks, a task with itself included
-- columns: a, b: the tasks; drift: in nats
-- reading: 0 for equal distributions; below about 0.05 filters are shaped alike, above 0.5 they differ in kind. A task
--   with few layers drifts from everything: look at drift_interval
-- example: warehouse analyses cnn.warehouse drift_by_task
from drift(task);
