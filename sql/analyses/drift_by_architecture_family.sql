-- purpose: Distribution shift between architecture families: how differently the filters of their models are shaped.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: none
-- grain: one row per ordered pair of families, a family with itself included
-- columns: a, b: the families; drift: in nats
-- reading: 0 for equal distributions. Families are for different tasks: drift_controlled(architecture_family, task)
--   compares within tasks. architecture_patterns tells how a family is known by the model's name
-- nulls: models of no known family count nowhere
-- example: warehouse analyses cnn.warehouse drift_by_architecture_family
from drift(architecture_family);
