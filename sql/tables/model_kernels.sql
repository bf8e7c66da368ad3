-- purpose: How many convolution filters of each kernel size a model has; the source has one column per size.
-- grain: one row per model and kernel size
-- columns: model_id; height, width: in weights; n_filters
-- example: select height, width, sum(n_filters) from model_kernels group by all
create table model_kernels as
from lake_model_kernels
order by model_id, height, width;
