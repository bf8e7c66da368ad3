-- purpose: Distribution shift between models of different precision of the weights, and between those written with
--   different ONNX operator sets.
-- source: CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: none
-- grain: one row per axis, precision or op_set, and unordered pair of its groups
-- columns: axis; a, b: the groups as text, a before b; drift: in nats
-- reading: neither should shape filters by itself: a drift tells of the models that happen to come that way.
--   drift_controlled(op_set, task) compares within tasks
-- nulls: no rows for what the source does not tell; precision is known of the robustness data set alone
-- example: warehouse analyses cnn.warehouse drift_by_precision
-- portable: yes
with drifts as (
    select 'precision' as axis, a, b, drift
    from drift(layer_meta.precision)
    where a < b
    union all
    select 'op_set' as axis, a::varchar as a, b::varchar as b, drift
    from drift(op_set)
    where a < b
)
from drifts
order by axis desc, try_cast(a as integer), a, try_cast(b as integer), b;
