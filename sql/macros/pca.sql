-- purpose: Principal components of the scaled filters of each group of layers, from the layers' moments. The
--   eigenvectors come from Jacobi's method in plain SQL, so that no extension and no UDF is needed; it takes about 65 kB
--   of memory a group.
-- grain: one row per group and component (0 .. 8, falling eigenvalue)
-- parameters: axis: an expression over the columns of layer_meta and layer_quality, its values are the groups;
--   keep: a condition on the same columns, which layers count (default true)
-- columns: grp; component; eigenvalue: variance along the component; explained_variance_ratio: its share of the
--   variance (0 where there is none); cumulative_ratio: the shares up to here; loading: the component, 9 weights
--   row by row, length 1, the entry with the largest magnitude positive
-- nulls: layers where axis is NULL form no group; so do layers without statistics
-- example: select grp, component, cumulative_ratio from pca(task) where component < 3
create macro pca(axis, keep := true) as table
with recursive grouped as (
    -- apart from the table that it is joined with, so that axis cannot name its columns
    from layer_groups(axis, keep := keep)
),
members as (
    select grp, n, mean, scatter
    from layer_moments
    join grouped using (layer_id)
    where n > 0
),
-- group means: the same sum for each of the 9 weights
mean_entries as (
    select grp, i, sum(n) as n, sum(n * mean[i]) / sum(n) as mean
    from members cross join range(1, 10) as weights(i)
    group by grp, i
),
group_means as (
    select grp, any_value(n) as n, list(mean order by i) as mean
    from mean_entries
    group by grp
),
-- the packed upper triangle in which a layer keeps its scatter, row by row
triangle as (
    select i, j, row_number() over (order by i, j) as position
    from range(1, 10) as r(i) cross join range(1, 10) as c(j)
    where i <= j
),
-- scatter within the layers plus scatter of the layers' means around the group's
covariance_entries as (
    select
        grp, i, j,
        sum(m.scatter[position] + m.n * (m.mean[i] - g.mean[i]) * (m.mean[j] - g.mean[j]))
            / greatest(any_value(g.n) - 1, 1) as covariance
    from members as m
    join group_means as g using (grp)
    cross join triangle
    group by grp, i, j
),
covariances as (
    select grp, list(covariance order by i, j) as a
    from (
        select grp, i, j, covariance from covariance_entries
        union all
        select grp, j, i, covariance from covariance_entries where i <> j
    )
    group by grp
),
-- Jacobi: a and v are 9x9 matrices as lists of 81, row by row; x numbers their entries from 0. Each step turns
-- four disjoint planes (i, partner[i]) at once, so that the entries between them vanish; nine steps visit every
-- plane. Row i of v converges to an eigenvector and entry (i, i) of a to its eigenvalue. It takes about 50
-- steps to reach rounding; 200 is a bound that no matrix should meet.
jacobi(grp, step, a, v) as (
    select grp, 0, a, list_transform(range(81), lambda x: case when x // 9 = x % 9 then 1.0::double else 0 end)
    from covariances
    union all
    select
        grp,
        step + 1,
        -- grouped so that entries (i, j) and (j, i) stay equal to the last bit
        list_transform(range(81), lambda x:
            (c[x // 9 + 1] * c[x % 9 + 1]) * a[x + 1]
            + (s[x // 9 + 1] * s[x % 9 + 1]) * a[9 * partner[x // 9 + 1] + partner[x % 9 + 1] + 1]
            + ((c[x // 9 + 1] * s[x % 9 + 1]) * a[9 * (x // 9) + partner[x % 9 + 1] + 1]
                + (s[x // 9 + 1] * c[x % 9 + 1]) * a[9 * partner[x // 9 + 1] + x % 9 + 1])),
        list_transform(range(81), lambda x:
            c[x // 9 + 1] * v[x + 1] + s[x // 9 + 1] * v[9 * partner[x // 9 + 1] + x % 9 + 1])
    from (
        select
            *,
            list_transform(tangent, lambda t: 1 / sqrt(1 + t * t)) as c,
            list_transform(tangent, lambda t: t / sqrt(1 + t * t)) as s
        from (
            select
                *,
                -- the smaller angle that zeroes entry (i, partner[i]); i and its partner turn in opposite senses;
                -- entries whose square is no longer a number above 0 count as zero
                list_transform(range(9), lambda i:
                    case
                        when partner[i + 1] = i or abs(a[9 * i + partner[i + 1] + 1]) < 1e-150 then 0
                        else
                            case when gap[i + 1] > 0 or (gap[i + 1] = 0 and i < partner[i + 1]) then -2 else 2 end
                            * a[9 * i + partner[i + 1] + 1]
                            / (abs(gap[i + 1]) + sqrt(pow(gap[i + 1], 2) + pow(2 * a[9 * i + partner[i + 1] + 1], 2)))
                    end) as tangent
            from (
                select *, list_transform(range(9), lambda i: a[10 * partner[i + 1] + 1] - a[10 * i + 1]) as gap
                from (select *, list_transform(range(9), lambda i: (step + 207 - i) % 9) as partner from jacobi)
            )
        )
    )
    where
        step < 200
        and list_sum(list_transform(range(81), lambda x: case when x // 9 = x % 9 then 0 else a[x + 1] * a[x + 1] end))
            > 1e-31 * list_sum(list_transform(a, lambda y: y * y))
),
converged as (
    select grp, max_by(a, step) as a, max_by(v, step) as v
    from jacobi
    group by grp
),
components as (
    select
        grp,
        greatest(a[10 * i + 1], 0) as eigenvalue,
        v[9 * i + 1 : 9 * i + 9] as loading,
        list_transform(loading, lambda y: abs(y)) as magnitude,
        row_number() over (partition by grp order by eigenvalue desc, i) - 1 as component
    from converged cross join range(9) as numbers(i)
)
select
    grp,
    component::utinyint as component,
    eigenvalue,
    coalesce(eigenvalue / nullif(sum(eigenvalue) over (partition by grp), 0), 0) as explained_variance_ratio,
    coalesce(
        sum(eigenvalue) over (partition by grp order by component)
            / nullif(sum(eigenvalue) over (partition by grp), 0), 0) as cumulative_ratio,
    list_transform(loading, lambda y: y * sign(loading[list_position(magnitude, list_max(magnitude))])) as loading
from components
order by grp, component;
