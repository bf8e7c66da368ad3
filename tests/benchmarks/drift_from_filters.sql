-- purpose: What one would write instead of drift(task), had a warehouse no statistics of layers: from single filters, on
--   the same basis and in the same bins, without any macro.
-- grain: one row per ordered pair of tasks, a task with itself included
-- columns: a, b: the tasks; drift
with tasks as (
    select layer_id, task
    from layers
    join models using (model_id)
    where task is not null
),
axes as (
    select
        component,
        explained_variance_ratio as weight,
        loading::double[9] as loading,
        array_inner_product(loading::double[9], mean::double[9]) + lo as origin,
        bins / (hi - lo) as bins_per_unit,
        bins
    from basis
    cross join basis_mean
    cross join histogram_range
),
weights as (
    select
        task,
        [w0, w1, w2, w3, w4, w5, w6, w7, w8]::double[9] as weights,
        greatest(abs(w0), abs(w1), abs(w2), abs(w3), abs(w4), abs(w5), abs(w6), abs(w7), abs(w8))::double as peak
    from filters
    join tasks using (layer_id)
),
-- 1e-9 bins: filters of zeros lie on an edge
counts as (
    select
        task,
        component,
        least(
            bins - 1,
            floor((array_inner_product(weights, loading) / if(peak = 0, 1, peak) - origin) * bins_per_unit + 1e-9)
        )::int as bin,
        count(*) as n
    from weights
    cross join axes
    group by all
),
densities as (
    select
        task,
        component,
        weight,
        bin,
        coalesce(n / sum(n) over (partition by task, component) * bins_per_unit, 1.1920929e-07) as density
    from (select distinct task from counts)
    cross join (select *, unnest(range(bins))::int as bin from axes)
    left join counts using (task, component, bin)
),
probabilities as (
    select *, density / sum(density) over (partition by task, component) as p
    from densities
)
select a.task as a, b.task as b, sum(weight * (a.p - b.p) * ln(a.p / b.p)) as drift
from probabilities as a
join probabilities as b using (component, weight, bin)
group by all
order by a, b;
