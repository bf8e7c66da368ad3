-- purpose: Layers with everything known of their model: what an axis may name.
-- grain: one row per layer
-- columns: those of layers, then those of models
-- example: select task, conv_depth, sum(n_filters) from layer_meta group by all
create view layer_meta as
select layers.*, models.* exclude (model_id)
from layers
join models using (model_id);
