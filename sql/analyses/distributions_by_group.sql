-- purpose: Distribution of the coefficients of each group along each component: what a ridge plot draws.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: axis (column, task): whose values are the groups; component (integer, all components): only this one
-- grain: one row per group, component (0 .. 8) and bin (0 .. 69), empty bins included
-- columns: grp; component; bin; bin_lo, bin_hi: its edges; n: filters in it; density: share of the group's filters per
--   unit of the coefficient; probability: density, with 1.1920929e-07 (float32 eps) where it is 0, divided by its sum
-- reading: density integrates to 1 over the bins, whatever the group's size. One broad hump is what random filters look
--   like; spikes are filters that many layers share, or all-zero ones, which all lie at the coefficients of a zero
--   filter
-- nulls: layers without a value of axis form no group; groups whose layers all lack statistics have no rows
-- example: warehouse analyses cnn.warehouse distributions_by_group --set axis=visual_category --set component=0
-- portable: yes
from distributions(struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')))
where component = coalesce(getvariable('component')::integer, component);
