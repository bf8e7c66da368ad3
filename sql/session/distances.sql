-- purpose: Distances between the groups of an axis that stay bounded and know nothing of empty bins, beside drift. Needs
--   the functions that Python registers.
-- grain: one row per unordered pair of different groups
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: a, b: the groups, a before b; wasserstein: in units of the coefficients; jensen_shannon: divergence in nats,
--   at most ln 2; kolmogorov_smirnov: at most 1; each the mean over the components weighted by the variance that they explain
-- nulls: layers where axis is NULL form no group; nor do groups without filters
-- example: from distances(task) order by wasserstein desc
create macro distances(axis, keep := true) as table
with vectors as (
    select grp, component, list(density order by bin) as density, any_value(bin_hi - bin_lo) as width
    from distributions(axis, keep := keep)
    group by grp, component
)
select
    x.grp as a,
    y.grp as b,
    sum(explained_variance_ratio * wasserstein(x.density, y.density, x.width)) as wasserstein,
    sum(explained_variance_ratio * jensen_shannon(x.density, y.density)) as jensen_shannon,
    sum(explained_variance_ratio * kolmogorov_smirnov(x.density, y.density)) as kolmogorov_smirnov
from vectors as x
join vectors as y on x.component = y.component and x.grp < y.grp
join basis on basis.component = x.component
group by x.grp, y.grp
order by a, b;
