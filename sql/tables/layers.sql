-- purpose: The 3x3 convolution layers and where their filters are.
-- grain: one row per layer
-- columns: layer_id: unique in the warehouse; model_id; conv_depth: rank of the layer's depth among those with any 2-D
--   convolution; conv_depth_norm: the same from 0 to 1; depth_decile: 1 .. 10; first_filter_id, n_filters: its filters
--   are filter_id first_filter_id .. first_filter_id + n_filters - 1; in_channels, out_channels; layer_depth: depth in
--   the graph; source_layer_id: number within the model in the source; then every other column that varies within a model
-- nulls: conv_depth_norm of a model with a single depth; what the source does not say
-- example: select depth_decile, sum(n_filters) from layers group by depth_decile
create table layers as
from lake_layers
order by layer_id;
