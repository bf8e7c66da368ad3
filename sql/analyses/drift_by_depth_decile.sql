-- purpose: Distribution shift between the tenths of the models' depth.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: none
-- grain: one row per ordered pair of tenths, a tenth with itself included
-- columns: a, b: tenths of the depth, 1 .. 10; drift: in nats
-- reading: 0 for equal distributions. In the published matrix neighbours are alike, drift grows with the distance, and
--   the last tenth stands out. Tenth 1 holds the first layers; drift_first_layer looks at them alone
-- nulls: layers without depth, and models of a single depth, count nowhere
-- example: warehouse analyses cnn.warehouse drift_by_depth_decile
from drift(depth_decile);
