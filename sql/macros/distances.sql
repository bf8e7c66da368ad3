-- purpose: Distances between the groups of an axis that stay bounded and know nothing of empty bins, beside drift. Each is
--   the mean over the components weighted by the variance that they explain.
-- grain: one row per unordered pair of different groups
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: a, b: the groups, a before b; drift: as in drift; jensen_shannon: divergence in nats, at most ln 2;
--   wasserstein: distance in units of the coefficients; kolmogorov_smirnov: largest difference of the cumulative
--   distributions, at most 1
-- nulls: layers where axis is NULL form no group; nor do groups without filters. More than 2,000 groups are refused
-- example: from distances(task) order by wasserstein desc
create macro distances(axis, keep := true) as table
with compared as (
    from comparable_groups(axis, keep := keep)
),
distributed as (
    from distributions_of('compared')
),
drifts as (
    from drift_of_distributions('distributed')
),
-- shares of the filters, 0 where a bin is empty, and their running sums
shares as (
    select
        grp,
        component,
        bin,
        explained_variance_ratio as weight,
        bin_hi - bin_lo as width,
        density * (bin_hi - bin_lo) as share,
        sum(share) over (partition by grp, component order by bin) as cumulative
    from distributed
    join basis using (component)
),
vectors as (
    select
        grp,
        component,
        any_value(weight) as weight,
        any_value(width) as width,
        list(share order by bin) as share,
        list(cumulative order by bin) as cumulative,
        entropy_nats(list(share order by bin)) as entropy
    from shares
    group by grp, component
),
compared_components as (
    select
        x.grp as a,
        y.grp as b,
        x.weight,
        x.width,
        -- the entropy of the mixture less the mean entropy
        entropy_nats(list_transform(x.share, lambda p, i: (p + y.share[i]) / 2)) - (x.entropy + y.entropy) / 2
            as jensen_shannon,
        list_transform(x.cumulative, lambda c, i: abs(c - y.cumulative[i])) as gaps
    from vectors as x
    join vectors as y on x.component = y.component and x.grp < y.grp
),
summed as (
    select
        a,
        b,
        -- rounding may leave a hair below zero
        greatest(0, sum(weight * jensen_shannon)) as jensen_shannon,
        sum(weight * width * list_sum(gaps)) as wasserstein,
        sum(weight * list_max(gaps)) as kolmogorov_smirnov
    from compared_components
    group by a, b
)
select a, b, drift, jensen_shannon, wasserstein, kolmogorov_smirnov
from summed
join drifts using (a, b)
order by a, b;
