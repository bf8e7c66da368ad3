-- purpose: Layers and components whose histogram does not count every filter once, or has bins that there are not. Layers
--   with NaN or infinite weights have none.
-- grain: one row per fault
-- columns: fault: in words
with
counted as (
    select
        layer_id,
        component,
        sum(n) as n,
        bool_and(n > 0 and bin < (select bins from warehouse.histogram_range)) as is_sound
    from warehouse.layer_histograms
    group by layer_id, component
),

wanted as (
    select layer_id, component, sum(n) as n
    from warehouse.layer_moments
    cross join (select component from warehouse.basis) as components
    where n > 0
    group by layer_id, component
)

select
    format(
        'table layer_histograms: layer_id {}, component {}: {} filters in sound bins instead of {}',
        coalesce(coalesce(counted.layer_id, wanted.layer_id)::varchar, 'NULL'),
        coalesce(counted.component, wanted.component),
        if(is_sound, counted.n, 0), coalesce(wanted.n, 0)
    ) as fault
from counted
full join wanted
    on counted.layer_id is not distinct from wanted.layer_id
    and counted.component = wanted.component
where counted.n is distinct from wanted.n or not is_sound;
