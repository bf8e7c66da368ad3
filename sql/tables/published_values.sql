-- purpose: Other published numbers that a warehouse of the same data should reproduce (analysis reproduction).
-- grain: one row per number
-- columns: dataset: that it holds for; quantity: what it measures; item: of what, such as a component or a group; value;
--   tolerance: difference that is put down to rounding and to lower precision, a convention of ours;
--   source: who says so
-- example: from published_values
create table published_values as
select
    dataset::varchar as dataset, quantity::varchar as quantity, item::varchar as item, value::double as value,
    tolerance::double as tolerance, source::varchar as source
from csv_values;
