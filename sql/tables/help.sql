-- purpose: What there is in this warehouse: tables, views and macros (and in Python the UDFs).
-- grain: one row per object
-- columns: name; kind; purpose; parameters: of a macro or a function; columns: of a table, a view or a table macro;
--   example: a query that runs as it stands
-- example: select name, purpose from help where kind = 'table macro'
create table help (
    name varchar not null,
    kind varchar not null,
    purpose varchar not null,
    parameters varchar,
    columns varchar,
    example varchar not null
);
