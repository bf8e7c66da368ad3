-- purpose: Layers whose filters are not a range of their own within those of the sources, or whose model is unknown.
-- grain: one row per fault
-- columns: fault: in words
with
source_filters as (
    select sum(n_filters) as n
    from warehouse.sources
),

placed as (
    select
        layer_id,
        model_id,
        first_filter_id,
        n_filters,
        count(*) over (partition by layer_id) as n_rows,
        max(first_filter_id + n_filters) over (
            order by first_filter_id rows between unbounded preceding and 1 preceding
        ) as n_taken
    from warehouse.layers
)

select
    format(
        'table layers: layer_id {} of model_id {} with filters from {} on, {} of them, {}',
        coalesce(layer_id::varchar, 'NULL'), coalesce(model_id::varchar, 'NULL'),
        coalesce(first_filter_id::varchar, 'NULL'), coalesce(n_filters::varchar, 'NULL'),
        case
            when n_rows > 1 then 'has other rows too'
            when model_id not in (select model_id from warehouse.models) then 'is of no model'
            when first_filter_id < n_taken then 'shares filters with another layer'
            else 'is no range of the filters of the sources'
        end
    ) as fault
from placed
cross join source_filters
where (
    n_rows = 1
    and model_id in (select model_id from warehouse.models)
    and first_filter_id >= coalesce(n_taken, 0)
    and n_filters > 0
    and first_filter_id + n_filters <= source_filters.n
) is not true;
