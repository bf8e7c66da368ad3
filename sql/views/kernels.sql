-- purpose: Single filters with their nine weights as one list, for peak, scale, project and the functions on lists.
-- grain: one row per 3x3 filter
-- columns: filter_id; layer_id; model_id; kernel: DOUBLE[], the weights row by row
-- nulls: layer_id and model_id of filters that no layer claims
-- example: select filter_id, peak(kernel), scale(kernel) from kernels limit 5
create view kernels as
select filter_id, layer_id, model_id, [w0, w1, w2, w3, w4, w5, w6, w7, w8]::double[] as kernel
from filters;
