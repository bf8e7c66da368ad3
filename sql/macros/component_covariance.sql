-- purpose: Covariance and correlation of the coefficients on the basis within each group of layers. Over all filters the
--   components are uncorrelated by construction; what a group has beside its diagonal is its own structure.
-- grain: one row per group and ordered pair of components
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; i, j: components 0 .. 8; covariance: of their coefficients (n - 1); correlation: the same divided by both
--   standard deviations
-- nulls: correlation of a component that varies by less than rounding, 1e-10; layers where axis is NULL form no group
-- example: from component_covariance(task) where i < j order by abs(correlation) desc
create macro component_covariance(axis, keep := true) as table
with covered as (
    from covariances(axis, keep := keep)
),
-- v_i C v_j; row r of C is at 9 r + 1 .. 9 r + 9
entries as (
    select
        grp,
        x.component as i,
        y.component as j,
        list_dot_product(
            x.loading::double[],
            list_transform(
                range(9), lambda r: list_dot_product(covariance[9 * r + 1 : 9 * r + 9], y.loading::double[]))) as covariance
    from covered
    cross join basis as x
    cross join basis as y
),
variances as (
    select grp, i as component, covariance as variance
    from entries
    where i = j
),
-- weights are float32 of magnitude 1 at most: what varies by less than 1e-10 does so by rounding
deviations as (
    select grp, component, case when variance > 1e-20 then sqrt(variance) end as deviation
    from variances
)
select
    entries.grp,
    i,
    j,
    covariance,
    covariance / (x.deviation * y.deviation) as correlation
from entries
join deviations as x on x.grp = entries.grp and x.component = i
join deviations as y on y.grp = entries.grp and y.component = j
order by entries.grp, i, j;
