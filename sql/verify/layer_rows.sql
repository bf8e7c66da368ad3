-- purpose: Layers without exactly one row in each of the tables that have one a layer, and rows of no layer.
-- grain: one row per fault
-- columns: fault: in words
with
found as (
    select 'layer_moments' as name, layer_id
    from warehouse.layer_moments
    where layer_id is not null
    union all
    select 'layer_quality', layer_id
    from warehouse.layer_quality
    union all
    select 'layer_checksums', layer_id
    from warehouse.layer_checksums
),

counted as (
    select name, layer_id, count(*) as n
    from found
    group by name, layer_id
),

wanted as (
    select name, layer_id, 1 as n
    from warehouse.layers
    cross join (values ('layer_moments'), ('layer_quality'), ('layer_checksums')) as names(name)
)

select
    format(
        'table {}: layer_id {} has {} rows instead of {}',
        name, coalesce(layer_id::varchar, 'NULL'), coalesce(counted.n, 0), coalesce(wanted.n, 0)
    ) as fault
from counted
full join wanted using (name, layer_id)
where counted.n is distinct from wanted.n;
