-- purpose: layers from the source's columns: the tenth of the depth added.
-- grain: one row per layer
-- parameters: source_layers: typed columns in snake_case, depth_decile still NULL
select * replace (depth_decile(conv_depth_norm) as depth_decile)
from source_layers
order by layer_id;
