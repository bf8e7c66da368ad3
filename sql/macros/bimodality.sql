-- purpose: Sarle's bimodality coefficient of each group's coefficients along each component, from their histograms:
--   (skewness^2 + 1) / (excess kurtosis + 3 (n - 1)^2 / ((n - 2)(n - 3))), with sample skewness and kurtosis. 1/3 for a
--   normal distribution, 5/9 for a uniform one, above it for two peaks; strong skew raises it too.
-- grain: one row per group and component
-- parameters: members: the name, as text, of a table, view or CTE with the columns grp and layer_id
-- columns: grp; component; n: filters; skewness; kurtosis: excess; bimodality: at most 1
-- nulls: the three of fewer than four filters, and of coefficients that all lie in one bin
-- example: with tasks as (from layer_groups(task)) from bimodality('tasks') where component = 0
create macro bimodality(members) as table
with counts as (
    select grp, component, bin::double as bin, sum(n)::double as n
    from layer_histograms
    join (select grp, layer_id from query_table(members)) using (layer_id)
    group by grp, component, bin
),
centres as (
    select grp, component, sum(n) as total, sum(n * bin) / sum(n) as mean
    from counts
    group by grp, component
),
-- shape does not depend on the unit: bins will do
central_moments as (
    select
        grp,
        component,
        any_value(total) as n,
        sum(c.n * (bin - mean) ** 2) / any_value(total) as m2,
        sum(c.n * (bin - mean) ** 3) / any_value(total) as m3,
        sum(c.n * (bin - mean) ** 4) / any_value(total) as m4
    from counts as c
    join centres using (grp, component)
    group by grp, component
),
shapes as (
    select
        grp,
        component,
        n,
        case when n > 3 and m2 > 0 then sqrt(n * (n - 1)) / (n - 2) * m3 / m2 ** 1.5 end as skewness,
        case
            when n > 3 and m2 > 0
                then (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / (m2 * m2) - 3) + 6)
        end as kurtosis
    from central_moments
)
select
    grp,
    component,
    n::bigint as n,
    skewness,
    kurtosis,
    (skewness * skewness + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))) as bimodality
from shapes
order by grp, component;
