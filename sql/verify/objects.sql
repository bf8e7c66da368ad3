-- purpose: Tables, views, macros and analyses that are not as the table help lists them.
-- grain: one row per fault
-- columns: fault: in words
with
listed as (
    select name, kind
    from warehouse.help
),

found as (
    select table_name as name, 'table' as kind
    from duckdb_tables()
    where database_name = 'warehouse'
    union all
    select view_name, 'view'
    from duckdb_views()
    where database_name = 'warehouse' and not internal
    union all
    select function_name, if(function_type = 'table_macro', 'table macro', 'scalar macro')
    from duckdb_functions()
    where database_name = 'warehouse'
    union all
    select name, 'analysis'
    from warehouse.analyses
)

select format('{} {} is missing', kind, name) as fault
from (from listed except from found)
union all
select format('{} {} was not made by ingest', kind, name)
from (from found except from listed);
