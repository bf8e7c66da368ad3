-- purpose: How much of the variance of all scaled filters their first components explain, and the same for each group
--   of layers with its own components.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on the principal components of filters
-- parameters: axis (column, no groups): whose values are the groups, beside all filters
-- grain: one row per component 0 .. 8 of all filters, then one per group and component
-- columns: grp: NULL for all filters, on the basis that everything else is measured by; component; eigenvalue: variance
--   along it; explained_variance_ratio: its share of the variance; cumulative_ratio: the shares up to here
-- reading: the sooner cumulative_ratio nears 1, the fewer shapes the filters are made of; random filters rise evenly,
--   by 1/9 a component. The components of a group are its own: ratios can be compared between groups, components need
--   not be the same shape (eigenimages shows them). All filters include those that no layer claims
-- nulls: layers without a value of axis form no group
-- example: warehouse analyses cnn.warehouse explained_variance --set axis=visual_category
-- portable: yes
with everything as (
    select
        component,
        eigenvalue,
        explained_variance_ratio,
        sum(explained_variance_ratio) over (order by component) as cumulative_ratio
    from basis
),
grouped as (
    from pca(
        struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')),
        keep := getvariable('axis')::varchar is not null)
)
select null as grp, component, eigenvalue, explained_variance_ratio, cumulative_ratio
from everything
union all
select grp, component, eigenvalue, explained_variance_ratio, cumulative_ratio
from grouped
order by grp nulls first, component;
