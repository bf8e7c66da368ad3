-- purpose: Whether a table holds the same rows as its files, in any order: by the sum of their hashes.
-- grain: one row, or none where they are the same
-- columns: fault: in words
-- parameters: stored: the table; committed: its files
with
-- both with all columns of both, in one order and of one type, or hashes would differ
columns_of_both as (
    (from stored limit 0)
    union all by name
    (from committed limit 0)
),

table_rows as (
    from columns_of_both
    union all by name
    from stored
),

file_rows as (
    from columns_of_both
    union all by name
    from committed
),

of_table as (
    select sum(hash(*columns(*))) as digest
    from table_rows
),

of_files as (
    select sum(hash(*columns(*))) as digest
    from file_rows
)

select 'its rows are not those of its files' as fault
from of_table
cross join of_files
where of_table.digest is distinct from of_files.digest;
