-- purpose: Distribution shift between groups of layers: how differently their filters are shaped. For each component of
--   the basis the symmetric Kullback-Leibler divergence of the two distributions, weighted by the variance that the
--   component explains.
-- grain: one row per ordered pair of groups, a group with itself included
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: a, b: the groups; drift: in nats, 0 for equal distributions, symmetric, not bounded
-- nulls: layers where axis is NULL form no group; nor do groups without filters
-- example: from drift(task, keep := conv_depth > 0) order by drift desc
create macro drift(axis, keep := true) as table
-- KL(p, q) + KL(q, p) = p.ln p + q.ln q - p.ln q - q.ln p: two dot products a pair once each group has its vectors
with vectors as (
    select
        grp,
        list(probability order by component, bin) as p,
        list(explained_variance_ratio * ln(probability) order by component, bin) as weighted_log
    from distributions(axis, keep := keep)
    join basis using (component)
    group by grp
),
entropies as (
    select grp, p, weighted_log, list_dot_product(p, weighted_log) as own
    from vectors
)
select
    x.grp as a,
    y.grp as b,
    -- rounding may leave a hair below zero
    greatest(
        0,
        (x.own + y.own) - (list_dot_product(x.p, y.weighted_log) + list_dot_product(y.p, x.weighted_log))
    ) as drift
from entropies as x
cross join entropies as y
order by a, b;
