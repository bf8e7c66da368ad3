-- purpose: Single filters with their layer and model.
-- grain: one row per 3x3 filter
-- columns: those of filters, then those of layer_meta
-- nulls: all columns of layer_meta for filters that no layer claims
-- example: select filter_id, task, conv_depth, w4 from filter_meta limit 5
create view filter_meta as
select filters.*, layer_meta.* exclude (layer_id, model_id)
from filters
left join layer_meta using (layer_id);
