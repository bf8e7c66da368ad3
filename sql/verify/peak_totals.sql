-- purpose: Layers whose relative peaks do not count every filter once, or have bins that there are not. Layers with NaN or
--   infinite weights have none.
-- grain: one row per fault
-- columns: fault: in words
with
counted as (
    select
        layer_id,
        sum(n) as n,
        bool_and(n > 0 and bin <= (select max(bin) + 1 from warehouse.peak_edges)) as is_sound
    from warehouse.layer_peaks
    group by layer_id
),

wanted as (
    select layer_id, n
    from warehouse.layer_moments
    where n > 0 and layer_id is not null
)

select
    format(
        'table layer_peaks: layer_id {}: {} filters in sound bins instead of {}',
        coalesce(layer_id::varchar, 'NULL'), if(is_sound, counted.n, 0), coalesce(wanted.n, 0)
    ) as fault
from counted
full join wanted using (layer_id)
where counted.n is distinct from wanted.n or not is_sound;
