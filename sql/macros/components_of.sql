-- purpose: Principal components of covariance matrices that a table or a CTE holds: what pca makes of the groups of an
--   axis. The eigenvectors come from Jacobi's method in plain SQL, so that no extension and no UDF is needed; it takes
--   about 65 kB of memory a matrix.
-- grain: one row per group and component (0 .. 8, falling eigenvalue)
-- parameters: matrices: the name, as text, of a table, view or CTE with the columns grp (one row each) and covariance,
--   81 numbers row by row
-- columns: grp; component; eigenvalue: variance along the component; explained_variance_ratio: its share of the
--   variance (0 where there is none); cumulative_ratio: the shares up to here; loading: the component, 9 weights
--   row by row, length 1, the entry with the largest magnitude positive, the first of those that tie
-- nulls: no rows without matrices. More than 2,000 are refused
-- example: with covered as (from covariances(task)) from components_of('covered')
create macro components_of(matrices) as table
with recursive given as (
    -- symmetric to the last bit, or the two rows of a plane would turn by different angles
    select
        grp,
        list_transform(range(81), lambda x: (covariance[x + 1] + covariance[9 * (x % 9) + x // 9 + 1]) / 2) as covariance
    from (select grp, covariance from query_table(matrices))
    where (select few_groups(count(*)) from query_table(matrices))
),
-- Jacobi: a and v are 9x9 matrices as lists of 81, row by row; x numbers their entries from 0. Each step turns
-- four disjoint planes (i, partner[i]) at once, so that the entries between them vanish; nine steps visit every
-- plane. Row i of v converges to an eigenvector and entry (i, i) of a to its eigenvalue. It takes about 50
-- steps to reach rounding; 200 is a bound that no matrix should meet.
jacobi(grp, step, a, v) as (
    select grp, 0, covariance, list_transform(range(81), lambda x: case when x // 9 = x % 9 then 1.0::double else 0 end)
    from given
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
        -- of those that are equal but for rounding the first
        list_position(list_transform(magnitude, lambda y: y > (1 - 1e-9) * list_max(magnitude)), true) as strongest,
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
    list_transform(loading, lambda y: y * sign(loading[strongest])) as loading
from components
order by grp, component;
