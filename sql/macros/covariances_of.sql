-- purpose: Mean and covariance of the filters of groups of layers that a table or a CTE names, from the layers' moments:
--   what covariances makes of the groups of an axis.
-- grain: one row per group
-- parameters: members: the name, as text, of a table, view or CTE with the columns grp and layer_id;
--   filters: which filters and how: 'scaled' (default), 'clean' (scaled, without the sparse ones), 'raw' (as they are)
--   or 'clean_raw' (raw, without the sparse ones)
-- columns: grp; n: filters; mean: nine weights row by row; covariance: of the weights (n - 1), 81 numbers row by row
-- nulls: groups without such filters have no row
-- example: with halves as (select layer_id % 2 as grp, layer_id from layers) from covariances_of('halves')
create macro covariances_of(members, filters := 'scaled') as table
with grouped as (
    select grp, layer_id
    from query_table(members)
),
chosen as (
    select
        layer_id,
        case when filters in ('scaled', 'raw') then n else n_clean end as n,
        case filters
            when 'scaled' then mean
            when 'clean' then clean_mean
            when 'raw' then raw_mean
            when 'clean_raw' then clean_raw_mean
            else error('filters is ''' || coalesce(filters, 'NULL') || '''; expected scaled, clean, raw or clean_raw')
        end as mean,
        case filters
            when 'scaled' then scatter
            when 'clean' then clean_scatter
            when 'raw' then raw_scatter
            else clean_raw_scatter
        end as scatter
    from layer_moments
),
members as (
    select grp, n, mean, scatter
    from chosen
    join grouped using (layer_id)
    where n > 0
),
-- group means: the same sum for each of the 9 weights
mean_entries as (
    select
        grp,
        i,
        sum(n)::bigint as n,
        -- equal means stay what they are, so that constant layers have no variance by rounding
        case when min(mean[i]) = max(mean[i]) then min(mean[i]) else sum(n * mean[i]) / sum(n) end as mean
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
matrices as (
    select grp, list(covariance order by i, j) as covariance
    from (
        select grp, i, j, covariance from covariance_entries
        union all
        select grp, j, i, covariance from covariance_entries where i <> j
    )
    group by grp
)
select grp, n, mean, covariance
from group_means
join matrices using (grp)
order by grp;
