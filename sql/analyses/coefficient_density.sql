-- purpose: Density of two coefficients of single filters, as a two-dimensional histogram. Reads the raw filters.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: x (integer, 0): component along the first axis; y (integer, 1): component along the second axis; bins
--   (integer, 512): cells along each side; task (varchar, all tasks): only models of this task; visual_category
--   (varchar, all categories): only models of this category; model (varchar, all models): only this one, by model_id,
--   file name or name; layer_id (integer, all layers): only this layer
-- grain: one row per cell that is not empty
-- columns: x, y: the components; x_bin, y_bin; x_lo, x_hi, y_lo, y_hi: edges of the cell; n: filters in it
-- reading: a round cloud is what random filters look like; lines and spots are layers whose filters repeat themselves
-- example: warehouse analyses cnn.warehouse coefficient_density --set x=0 --set y=2 --set bins=64
-- portable: yes
from density(
    coalesce(getvariable('x')::integer, 0),
    coalesce(getvariable('y')::integer, 1),
    keep := task is not distinct from coalesce(getvariable('task')::varchar, task)
        and visual_category is not distinct from coalesce(getvariable('visual_category')::varchar, visual_category)
        and case
            when getvariable('model')::varchar is null then true
            else model_id = model_id_of(getvariable('model')::varchar)
        end
        and layer_id is not distinct from coalesce(getvariable('layer_id')::integer, layer_id),
    bins := coalesce(getvariable('bins')::integer, 512));
