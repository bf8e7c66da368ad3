-- purpose: The tables of the warehouse and their columns; views are none.
-- grain: one row per column
select table_name, column_name
from duckdb_columns()
where
    database_name = 'warehouse'
    and schema_name = 'main'
    and table_name in (
        select table_name
        from duckdb_tables()
        where database_name = 'warehouse' and schema_name = 'main'
    );
