-- purpose: Models whose files do not hold as many filters as their layers, and the same for filters that no layer claims.
--   Sources count filters of removed models still, so that they may have more than there are, but never fewer.
-- grain: one row per fault
-- columns: fault: in words
with
in_files as (
    select regexp_extract(path, 'model_id=([^/]*)/[^/]*$', 1) as model, sum(n_rows) as n
    from warehouse.files
    where name = 'filters'
    group by model
),

in_layers as (
    select model_id::varchar as model, sum(n_filters) as n
    from warehouse.layers
    group by model_id
    union all
    select '__HIVE_DEFAULT_PARTITION__', n
    from (select sum(n_unclaimed) as n from warehouse.sources)
    where n > 0
),

totals as (
    select
        (select sum(n_filters) from warehouse.sources) as in_sources,
        (select sum(n) from in_layers) as claimed,
        (select sum(n) from warehouse.layer_moments where layer_id is null) as measured,
        (select count(*) from warehouse.layer_moments where layer_id is null and n is null) as unmeasured,
        (select sum(n_unclaimed) from warehouse.sources) as unclaimed
)

select
    format(
        'table files: {} filters in the files of model_id={} instead of {}', coalesce(in_files.n, 0), model,
        coalesce(in_layers.n, 0)
    ) as fault
from in_files
full join in_layers using (model)
where in_files.n is distinct from in_layers.n
union all
select
    format(
        'table sources: {} filters, but {} belong to layers or to none', coalesce(in_sources, 0), coalesce(claimed, 0)
    )
from totals
where (claimed <= in_sources) is not true
union all
select
    format(
        'table sources: {} filters that no layer claims, but {} in layer_moments', coalesce(unclaimed, 0),
        coalesce(measured, 0)
    )
from totals
where unmeasured = 0 and coalesce(measured, 0) is distinct from unclaimed;
