-- purpose: Principal components of covariance matrices, as the macro of the same name computes them, by the function eigh:
--   Spark repeats a query at most a hundred times, and starts a job for each step.
-- grain: one row per group and component 0 to 8, by falling eigenvalue
-- parameters: matrices: the name of a table with grp and covariance, the nine rows of a matrix one after the other
-- columns: grp; component; eigenvalue; explained_variance_ratio; cumulative_ratio; loading: of length 1, its entry of
--   largest magnitude positive, the first of those that tie
-- example: from pca(task)
create macro components_of(matrices) as table
with triangle as (
    select i, j, row_number() over (order by i, j) as position
    from range(9) as r(i) cross join range(9) as c(j)
    where i <= j
),
entries as (
    select grp, position, (covariance[9 * i + j + 1] + covariance[9 * j + i + 1]) / 2 as entry
    from (select grp, covariance from query_table(matrices))
    cross join triangle
    where (select few_groups(count(*)) from query_table(matrices))
),
decomposed as (
    select grp, eigh(list(entry order by position)) as spectrum
    from entries
    group by grp
),
components as (
    select
        grp,
        component,
        greatest(spectrum.eigenvalues[component + 1], 0) as eigenvalue,
        spectrum.eigenvectors[component + 1] as loading
    from decomposed cross join range(9) as numbers(component)
)
select
    grp,
    component::utinyint as component,
    eigenvalue,
    coalesce(eigenvalue / nullif(sum(eigenvalue) over (partition by grp), 0), 0) as explained_variance_ratio,
    coalesce(
        sum(eigenvalue) over (partition by grp order by component)
            / nullif(sum(eigenvalue) over (partition by grp), 0), 0) as cumulative_ratio,
    loading
from components
order by grp, component;
